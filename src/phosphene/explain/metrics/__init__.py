"""Numbers that say how good an explanation is; `judge` asks for them all."""
