"""Train one CNN on MNIST twice, written with nn and with nn.functional, and compare.

python -m examples.mnist [--epochs 3] [--seed 0] [--threads N] [--limit N] [--out FOLDER]
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import faltung as torch
from faltung import nn

from . import data, dropout, model_functional, model_nn, pictures, training

MODELS: dict[str, type[nn.Module]] = {"nn": model_nn.CNN, "nn.functional": model_functional.CNN}
OUT = Path(__file__).resolve().parent / "out"


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.mnist", description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=positive, default=3, help="passes over the training images (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the shuffles (default: 0)")
    parser.add_argument("--threads", type=positive, help="default: every core that this process may use")
    parser.add_argument("--limit", type=positive, help="use only the first N images for training, and for testing")
    parser.add_argument("--out", type=Path, default=OUT, help="where pictures and the checkpoint go")
    return parser.parse_args(arguments)


def first_filters(model: nn.Module) -> np.ndarray:
    """A copy of the first convolution's weight, (16, 1, 5, 5): the first parameter of both models."""
    return next(model.parameters()).detach().numpy().copy()


def check_checkpoint(model: nn.Module, images: torch.Tensor, expected: np.ndarray, path: Path) -> bool:
    """Save the model's state, load it into a new model, and tell whether that one answers bit for bit the same."""
    torch.save(model.state_dict(), path)
    reloaded = type(model)()
    reloaded.load_state_dict(torch.load(path))
    return np.array_equal(training.scores(reloaded, images), expected)


def print_dropout(seed: int) -> None:
    print("\nDropout: is it on after")
    width = max(map(len, dropout.NETS))
    print(f"  {'':{width}}  train()  eval()")
    for name, states in dropout.demonstrate(seed).items():
        after_train, after_eval = ("on" if state else "off" for state in states)
        print(f"  {name:{width}}  {after_train:7}  {after_eval}")
    print("eval() reaches modules. A function has to be told, so for dropout the module is the safer choice.")


def main(arguments: list[str] | None = None) -> int:
    """Run the whole demonstration; the exit status is 0 if both models agree and the checkpoint is whole."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    training_set, test_set = (data.read_digits(data.FOLDER, prefix) for prefix in ("train", "t10k"))
    if options.limit:
        training_set, test_set = (data.Digits(*(part[: options.limit] for part in s)) for s in (training_set, test_set))
    images, labels = data.to_tensors(training_set)
    test_images, _ = data.to_tensors(test_set)
    print(f"MNIST: {len(images):,} training and {len(test_images):,} test images. Threads: {torch.get_num_threads()}")

    losses: dict[str, list[float]] = {}
    whole = True
    for name, make in MODELS.items():
        torch.manual_seed(options.seed)
        model = make()
        before = first_filters(model)
        history = training.train(model, images, labels, epochs=options.epochs, seed=options.seed, title=f"{name:13}")
        losses[name] = history.losses
        answer = training.scores(model, test_images)
        predictions = answer.argmax(1)
        accuracy = (predictions == test_set.labels).mean()
        is_same = check_checkpoint(
            model, test_images, answer, options.out / f"cnn_{name.replace('.', '_')}.safetensors"
        )
        whole = whole and is_same
        print(
            f"{name:13}  test accuracy {accuracy:.2%}, {history.images_per_s:,.0f} images per second in training, "
            f"{'same' if is_same else 'DIFFERENT'} predictions after saving and loading"
        )

    first, second = (np.asarray(values) for values in losses.values())
    difference = np.abs(first - second).max()
    print(f"\nLosses of nn and nn.functional over {len(first)} steps: largest difference {difference:g}")
    print_dropout(options.seed)

    pictures.draw_losses(losses, training.BATCH, options.out / "losses.png")
    pictures.draw_filters(before, first_filters(model), options.out / "filters.png")
    pictures.draw_digits(test_set.images, test_set.labels, predictions, options.out / "digits.png")
    print(f"\nPictures: {', '.join(str(path) for path in sorted(options.out.glob('*.png')))}")
    return 0 if whole and difference == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
