"""What the SPC loss does: four readings of SORN Eq. 2 and 5, and none at all (λ2 = 0).

For each reading a model is trained on the training identities without `--validation` of them; on those is measured the
share of ΣM_n inside its own band (1/3 for maps that do not care) and Rank-1 and mAP of the global slot alone. A reading
that was trained already is only measured again.

    python benchmarks/spc.py --data market1501 --masks market1501_masks --output runs/spc --weights lite0.pth
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from occluded_reid import load_dataset, load_model, load_recipe, train
from occluded_reid.data.holdout import holdout
from occluded_reid.evaluation import Protocol, embed_samples, evaluate
from occluded_reid.functional import band_share

READINGS = {
    "sum_sum": ("sum", "sum", 0.5),
    "sum_mean": ("sum", "mean", 0.5),
    "mean_sum": ("mean", "sum", 0.5),
    "mean_mean": ("mean", "mean", 0.5),
    "none": ("sum", "sum", 0.0),
}


def main() -> None:
    """Train what is missing, measure all, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", help="file of ImageNet weights; read in timm's tensor order")
    parser.add_argument("--holdout", type=int, default=100, help="test identities, which nothing here touches")
    parser.add_argument("--validation", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", choices=list(READINGS), default=list(READINGS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_dataset("market1501", options.data, masks=options.masks, holdout=options.holdout, seed=options.seed)
    data = holdout(data, options.validation, options.seed + 1)
    print(data.format_card())
    print(f"{'reading':<10} {'share in own band':<28} {'Rank-1':>7} {'mAP':>7}   (global slot alone)")
    for name in options.only:
        folder = options.output / name
        if not (folder / "model" / "model.json").is_file():
            aggregate, reduction, weight = READINGS[name]
            recipe = load_recipe(
                "sorn_lite",
                {
                    "model.heads.global.options.aggregate": aggregate,
                    "model.losses.spc.options.reduction": reduction,
                    "model.losses.spc.weight": weight,
                    "model.backbone.weights": options.weights,
                    "model.backbone.weights_match": "order",
                    "optim.epochs": options.epochs,
                    "optim.warmup_epochs": 2,
                    "optim.steps": {int(0.7 * options.epochs): 0.1, options.epochs: 0.1},
                },
            )
            pretrained = options.weights is not None
            train(recipe, data, folder, pretrained=pretrained, seed=options.seed, resume=(folder / "last").exists())
        model = load_model(folder / "model")
        query, gallery = (embed_samples(model, data, split).select(["global"]) for split in (data.query, data.gallery))
        report = evaluate(query, gallery, model.matcher, Protocol(bootstrap=1000, seed=options.seed))
        shares = []
        for start in range(0, len(data.query), 64):
            paths = [sample.path for sample in data.query[start : start + 64]]
            maps = model.infer(model.preprocess(paths))["global"].maps["aggregation"]
            shares.append(torch.stack([band_share(one[None]) for one in maps]))
        share = torch.cat(shares).mean(0)
        result = {"share": share.tolist(), "rank1": report.rank(1), "mAP": report.mAP}
        result |= {"rank1_interval": str(report.intervals["Rank-1"]), "mAP_interval": str(report.intervals["mAP"])}
        (folder / "result.json").write_text(json.dumps(result, indent=2))
        shown = " ".join(f"{s:.3f}" for s in share) + f"  mean {share.mean():.3f}"
        print(f"{name:<10} {shown:<28} {report.rank(1):7.1%} {report.mAP:7.1%}", flush=True)


if __name__ == "__main__":
    main()
