"""Whole networks, written once: `lib` is the library that stands behind them, faltung or torch."""

from typing import Any


def mission_cnn(lib: Any) -> Any:
    """Two 5x5 convolutions and a linear layer for 28x28 digits."""
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def vgg_cifar(lib: Any) -> Any:
    """A VGG-like network with batch norm for 32x32 images and 10 classes."""
    nn = lib.nn
    layers: list[Any] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 0):
        if width:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 10))


def vgg16(lib: Any) -> Any:
    """VGG-16 without batch norm (Simonyan and Zisserman 2014, configuration D)."""
    nn = lib.nn
    layers: list[Any] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    head: list[Any] = []
    for features in (512 * 7 * 7, 4096):
        head += [nn.Linear(features, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head, nn.Linear(4096, 1000))


def resnet18(lib: Any) -> Any:
    """ResNet-18 (He et al. 2015)."""
    return _resnet(lib, (2, 2, 2, 2), bottleneck=False)


def resnet50(lib: Any) -> Any:
    """ResNet-50 with the stride in the 3x3 convolution, as torchvision has it."""
    return _resnet(lib, (3, 4, 6, 3), bottleneck=True)


def _resnet(lib: Any, depths: tuple[int, ...], bottleneck: bool) -> Any:
    nn = lib.nn

    def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
            super().__init__()
            if bottleneck:
                parts = [*conv_norm(inputs, width, 1), nn.ReLU(inplace=True), *conv_norm(width, width, 3, stride)]
                parts += [nn.ReLU(inplace=True), *conv_norm(width, outputs, 1)]
            else:
                parts = [*conv_norm(inputs, width, 3, stride), nn.ReLU(inplace=True), *conv_norm(width, outputs, 3)]
            self.residual = nn.Sequential(*parts)
            is_same = stride == 1 and inputs == outputs
            self.shortcut = nn.Identity() if is_same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.residual(x) + self.shortcut(x))

    layers = [*conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        outputs = width * 4 if bottleneck else width
        for i in range(depth):
            layers.append(Block(channels, width, outputs, stride=2 if stage and not i else 1))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def mobilenet_v2(lib: Any) -> Any:
    """MobileNetV2 (Sandler et al. 2018) at width 1."""
    nn = lib.nn

    def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]

    class InvertedResidual(nn.Module):  # type: ignore[name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
            super().__init__()
            width = inputs * expansion
            parts = conv_norm(inputs, width, 1) if expansion > 1 else []
            parts += conv_norm(width, width, 3, stride, groups=width)
            parts += [nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
            self.conv = nn.Sequential(*parts)
            self.is_residual = stride == 1 and inputs == outputs

        def forward(self, x: Any) -> Any:
            return x + self.conv(x) if self.is_residual else self.conv(x)

    layers = conv_norm(3, 32, 3, 2)
    channels = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, outputs, depth, stride in stages:
        for i in range(depth):
            layers.append(InvertedResidual(channels, outputs, 1 if i else stride, expansion))
            channels = outputs
    layers += conv_norm(320, 1280, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000))
