import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from examples.mnist import __main__ as demo
from examples.mnist import data, dropout


def write_idx(path: Path, magic: bytes, shape: tuple[int, ...], payload: bytes) -> Path:
    path.write_bytes(gzip.compress(magic + struct.pack(f">{len(shape)}I", *shape) + payload))
    return path


def test_mnist_is_whole() -> None:
    training = data.read_digits(data.FOLDER, "train")
    test = data.read_digits(data.FOLDER, "t10k")
    assert training.images.shape == (60_000, 28, 28)
    assert test.images.shape == (10_000, 28, 28)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = training.images / 255.0
    assert pixels.mean() == pytest.approx(data.MEAN, abs=5e-5)
    assert pixels.std() == pytest.approx(data.STD, abs=5e-5)


IMAGES_MAGIC, LABELS_MAGIC = b"\0\0\x08\x03", b"\0\0\x08\x01"


@pytest.mark.parametrize(
    ("magic", "shape", "payload", "message"),
    [
        (IMAGES_MAGIC, (2, 2, 2), bytes(8), None),
        (IMAGES_MAGIC, (2, 2, 2), bytes(7), r"promises \(2, 2, 2\), that is 8 bytes, got 7"),
        (IMAGES_MAGIC, (2, 2, 2), bytes(9), "that is 8 bytes, got 9"),
        (LABELS_MAGIC, (8,), bytes(8), "expected the IDX header 00000803 .* got 00000801"),
        (b"", (), b"", "got an empty file"),
    ],
)
def test_read_idx(tmp_path: Path, magic: bytes, shape: tuple[int, ...], payload: bytes, message: str | None) -> None:
    path = write_idx(tmp_path / "file.gz", magic, shape, payload)
    if message is None:
        assert data.read_idx(path, 3).shape == shape
    else:
        with pytest.raises(ValueError, match=message):
            data.read_idx(path, 3)


def test_read_idx_damaged(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "file.gz", IMAGES_MAGIC, (2, 2, 2), bytes(8))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="expected a complete gzip file"):
        data.read_idx(path, 3)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(ValueError, match="expected a complete gzip file"):
        data.read_idx(path, 3)
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.read_idx(tmp_path / "missing.gz", 3)


def test_read_digits_disagreeing(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", IMAGES_MAGIC, (1, 28, 28), bytes(784))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", LABELS_MAGIC, (2,), bytes(2))
    with pytest.raises(ValueError, match="1 images but 2 labels"):
        data.read_digits(tmp_path, "t10k")
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", LABELS_MAGIC, (1,), b"\x0a")
    with pytest.raises(ValueError, match="0 to 9, got 10"):
        data.read_digits(tmp_path, "t10k")


def test_dropout_and_eval() -> None:
    assert dropout.demonstrate(seed=0) == {
        "nn.Dropout(0.5)": (True, False),
        "F.dropout(x, 0.5)": (True, True),
        "F.dropout(x, 0.5, training=self.training)": (True, False),
    }


def test_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status = demo.main(["--epochs", "1", "--limit", "1000", "--seed", "3", "--out", str(tmp_path)])
    printed = capfd.readouterr().out
    assert status == 0, printed
    assert "largest difference 0\n" in printed
    assert printed.count("same predictions after saving and loading") == 2
    accuracies = [
        float(line.split("accuracy ")[1].split("%")[0]) for line in printed.splitlines() if "accuracy" in line
    ]
    assert len(set(accuracies)) == 1
    assert accuracies[0] > 60
    for name in ("losses.png", "filters.png", "digits.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--threads", "-1"], ["--limit", "many"]])
def test_demo_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo.main(arguments)
    assert arguments[0] in capsys.readouterr().err
