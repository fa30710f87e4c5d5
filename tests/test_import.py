import subprocess
import sys

import pytest


def in_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = ("llvmlite", "hypothesis", "matplotlib", "tqdm", "torch", "safetensors")


def test_import_stays_light() -> None:
    """LLVM costs tens of milliseconds and is loaded at the first kernel; nothing else heavy is loaded unasked."""
    loaded = in_fresh_process("import sys, faltung; print('\\n'.join(sys.modules))").split()
    assert {name.partition(".")[0] for name in loaded} & set(HEAVY) == set()


def test_first_kernel_loads_llvmlite() -> None:
    program = (
        "import sys, faltung\n"
        "y = faltung.nn.functional.conv2d(faltung.rand(1, 2, 8, 8), faltung.rand(3, 2, 3, 3))\n"
        "print('llvmlite' in sys.modules)"
    )
    assert in_fresh_process(program).strip() == "True"


@pytest.mark.parametrize(
    "statement",
    [
        "import faltung as torch; torch.nn.functional, torch.optim, torch.utils.data, torch.autograd",
        "import faltung.nn as nn; nn.Conv2d",
        "import faltung.nn.functional as F; F.conv2d",
        "from faltung.utils.data import DataLoader, TensorDataset",
        "from faltung.optim import lr_scheduler; lr_scheduler.StepLR",
        "from faltung.autograd import Function, gradcheck",
        "from faltung.engine import call",
    ],
)
def test_every_way_in(statement: str) -> None:
    """Each import works as the first one of a process, so that no module leans on another's being loaded before."""
    in_fresh_process(statement)
