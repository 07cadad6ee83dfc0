"""The Focus game on 100 mosaics of the ImageNet samples: the share of positive attribution on the right quarter.

    python benchmarks/focus.py [--net efficientnet_lite0] [--methods grad-cam,lrp] [--score log-probability] [--mosaics 100]

`phosphene judge-explanations` is the same with all other checks; its journal makes it the better way for slow methods.
"""

from __future__ import annotations

import argparse
import time

from samples import SHARED, paths

import phosphene
from phosphene.explain.judge import Plan, judge
from phosphene.jobs.workshop import Collection
from phosphene.progress import run

QUICK = "gradient,saliency,gradient-x-input,guided-backprop,deconvnet,grad-cam,grad-cam++,layer-cam,guided-grad-cam,lrp"
LEAST = {("efficientnet_lite0", "grad-cam", "logit"): 0.75}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="efficientnet_lite0,squeezenet1_1")
    parser.add_argument("--methods", default=QUICK)
    parser.add_argument("--score", default="logit", choices=["logit", "log-probability"])
    parser.add_argument("--mosaics", type=int, default=100)
    options = parser.parse_args()
    if not (SHARED / "data" / "imagenet_samples").is_dir():
        print(f"no sample images at {SHARED}: nothing to measure")
        return
    for name in options.net.split(","):
        network = phosphene.load(name, device="cpu")
        methods = (*options.methods.split(","), "centre", "random")
        plan = Plan(methods, ("focus",), mosaics=options.mosaics, score=options.score)
        begun = time.perf_counter()
        found = run(judge(network, Collection(paths(), network), plan))
        print(f"{name}, {options.score}, {options.mosaics} mosaics, {time.perf_counter() - begun:.0f} s")
        for method, row in found.table().items():
            focus = row["focus"]
            print(f"  {method:<22} {focus.mean:.3f}  (95%: {focus.low:.3f} to {focus.high:.3f})")
            assert options.mosaics < 100 or focus.mean >= LEAST.get((name, method, options.score), 0)
        for method, why in found.refused.items():
            print(f"  {method:<22} {why}")


if __name__ == "__main__":
    main()
