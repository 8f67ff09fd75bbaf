"""From a folder of images to ranked answers, in Python: train, index, search, draw.

    python examples/folder_to_answers.py --data market/ --masks market_masks/ --holdout 100 --output runs/example

Without --data the synthetic set is drawn and used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from occluded_reid import Gallery, Protocol, embed_samples, evaluate, load_dataset, load_model, load_recipe, train
from occluded_reid.evaluation.pictures import search_picture


def main() -> None:
    """Run the whole road."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--holdout", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/example"))
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()

    if options.data is None:
        data = load_dataset("synthetic", options.output / "data")
    else:
        data = load_dataset("market1501", options.data, masks=options.masks, holdout=options.holdout)
    print(data.format_card())

    recipe = load_recipe("sorn_lite", {"optim.epochs": options.epochs, "optim.steps": {}, "optim.lr": 1e-3})
    model = load_model(train(recipe, data, options.output / "run").model)

    query, gallery_rows = embed_samples(model, data, data.query), embed_samples(model, data, data.gallery)
    print(evaluate(query, gallery_rows, model.matcher, Protocol(dataset=data.name), fingerprint=model.fingerprint))

    with Gallery.create(options.output / "gallery", model=model) as gallery:
        gallery.add(
            [sample.path for sample in data.gallery],
            keys=[sample.name for sample in data.gallery],
            identity=[sample.identity for sample in data.gallery],
            camera=[sample.camera for sample in data.gallery],
        )
        asked = [data.query[0].path]
        found = gallery.search(asked, k=8)
    for hit in found[0]:
        print(hit, hit.shared_visibility)
    search_picture(model, asked, found).save(options.output / "hits.png")


if __name__ == "__main__":
    main()
