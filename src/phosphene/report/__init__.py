"""Figures and self-contained HTML pages."""

from __future__ import annotations

from phosphene.report.page import Bar, Figure, Page, Section, Table, render

__all__ = ["Bar", "Figure", "Page", "Section", "Table", "render"]
