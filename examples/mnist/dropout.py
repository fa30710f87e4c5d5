"""What eval() does to nn.Dropout and to F.dropout."""

import faltung as torch
import faltung.nn.functional as F
from faltung import nn


class WithModule(nn.Module):
    """Dropout as a layer: it hears of train() and eval()."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(512, 256)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class WithFunction(nn.Module):
    """Dropout as a function: on unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(512, 256)
        self.fc2 = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5))


class WithFunctionTold(WithFunction):
    """Dropout as a function that is told the mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training))


NETS: dict[str, type[nn.Module]] = {
    "nn.Dropout(0.5)": WithModule,
    "F.dropout(x, 0.5)": WithFunction,
    "F.dropout(x, 0.5, training=self.training)": WithFunctionTold,
}


def changes_between_calls(net: nn.Module, x: torch.Tensor) -> bool:
    """Whether two calls with the same input answer differently, as they do while dropout is on."""
    with torch.no_grad():
        return not torch.equal(net(x), net(x))


def demonstrate(seed: int) -> dict[str, tuple[bool, bool]]:
    """For each way to write dropout: is it on after train(), is it on after eval()?"""
    torch.manual_seed(seed)
    x = torch.rand(8, 512)
    is_on = {}
    for name, make in NETS.items():
        net = make()
        is_on[name] = changes_between_calls(net.train(), x), changes_between_calls(net.eval(), x)
    return is_on
