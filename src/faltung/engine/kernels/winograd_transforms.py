"""Winograd's transforms of tiles and weights, on vectors of channels; see `conv_winograd` for the whole.

    input     V[xi][tile][channel] = Bt d B         tiles of (m + r - 1)^2 pixels, m apart, zeros outside the plane
    weights   U[xi][channel][width] = G g Gt        r x r taps
    sums      gw = At M A, the weight gradient from products summed over tiles: F(r x r, m x m)

Registers: m + r - 1 loads and as many results at a time, columns through a small stack array.
"""

from __future__ import annotations

from dataclasses import dataclass

from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.kernels import flat
from faltung.engine.kernels.linear_form import apply_matrix
from faltung.engine.kernels.winograd_matrices import Matrix, winograd

INPUT_FIELDS = (
    "x v zeros tiles first_tile tiles_h tiles_w channels in_h in_w before_h before_w tiles_per_chunk x_n x_h x_w"
)
WEIGHT_FIELDS = "packed u channels channels_per_chunk chunks_per_block"
WEIGHT_SUM_FIELDS = "products sums channels channels_per_chunk chunks_per_block blocks"


@dataclass(frozen=True, slots=True)
class InputSchedule:
    """The input transform, or that of the output gradient."""

    outputs: int  # m, the step from tile to tile
    masked: bool  # channels are no multiple of the lanes
    taps: int = 3  # r
    gradient: bool = False  # tiles of m x m pixels through G of F(r, m), for the weight gradient

    @property
    def points(self) -> int:
        """Points of a side of the transform."""
        return self.outputs + self.taps - 1

    @property
    def pixels(self) -> int:
        """Pixels of a tile's side."""
        return self.outputs if self.gradient else self.points

    @property
    def matrix(self) -> Matrix:
        """What a tile is multiplied with from both sides."""
        return winograd(self.taps, self.outputs).G if self.gradient else winograd(self.outputs, self.taps).Bt


@dataclass(frozen=True, slots=True)
class WeightSchedule:
    """The weight transform."""

    outputs: int  # m
    vectors: int
    taps: int = 3  # r


def emit_weights(e: Emitter, s: WeightSchedule) -> None:
    """U = G g Gt for a range of input channels of one channel block; `packed` is [block][tap][channel][width]."""
    e.is_scheduled()
    f, r = winograd(s.outputs, s.taps), s.taps
    channels, per_chunk, chunks_per_block = e.fields("channels channels_per_chunk chunks_per_block")
    width = s.vectors * e.lanes
    block, part = e.chunk // chunks_per_block, e.chunk % chunks_per_block
    packed = e.pointer("packed").at(block * channels * (r * r * width))
    u = e.pointer("u").at(block * channels * (f.size * f.size * width))
    step = channels * width
    first = part * per_chunk
    with e.loop("c", e.smaller(first + per_chunk, channels), start=first) as loop:
        lefts = []  # [v][j][xi]
        for v in range(s.vectors):
            source = packed.at(loop.index * width + v * e.lanes)
            g = [[source.at(step * (r * i + j)).load(e.lanes) for j in range(r)] for i in range(r)]
            lefts.append([apply_matrix(e, f.G, [g[i][j] for i in range(r)]) for j in range(r)])
        for i in range(f.size):
            rows = [apply_matrix(e, f.G, [left[k][i] for k in range(r)]) for left in lefts]
            for j in range(f.size):
                # vectors of one cache line are stored together: points lie too far apart for L1 to keep them all
                for v in range(s.vectors):
                    u.at(step * (i * f.size + j) + loop.index * width + v * e.lanes).store(rows[v][j])


class TileReader:
    """Transforms input tiles: reads (m + r - 1)^2 pixels of a channels-last image, writes as many vectors."""

    def __init__(self, e: Emitter, s: InputSchedule) -> None:
        self.e, self.s = e, s
        self.tiles_h, self.tiles_w, self.channels, self.in_h, self.in_w, self.before_h, self.before_w = e.fields(
            "tiles_h tiles_w channels in_h in_w before_h before_w"
        )
        self.x_n, self.x_h, self.x_w = e.fields("x_n x_h x_w")
        self.x, self.zeros = e.pointer("x"), e.pointer("zeros")
        self.room = e.stack(s.points * s.pixels * e.lanes)

    def read(self, tile: Int, to: Ptr, step: Int) -> None:
        """The transform of tile number `tile` of the batch; vectors of one channel lie `step` apart."""
        e, s, side = self.e, self.s, self.s.pixels
        n, th, tw = tile // self.tiles_w // self.tiles_h, tile // self.tiles_w % self.tiles_h, tile % self.tiles_w
        top, left = th * s.outputs - self.before_h, tw * s.outputs - self.before_w
        image = self.x.at(n * self.x_n)
        above = e.both(top >= 0, top + side <= self.in_h)
        with e.either(e.both(above, e.both(left >= 0, left + side <= self.in_w))) as (inside, at_edge):
            with inside:
                start = image.at(top * self.x_h + left * self.x_w)
                self._channels(
                    [start.at(self.x_h * i + self.x_w * j) for i in range(side) for j in range(side)], to, step
                )
            with at_edge:
                self._channels(self._clipped(image, top, left), to, step)

    def _clipped(self, image: Ptr, top: Int, left: Int) -> list[Ptr]:
        """Pixels of a tile that reaches over the plane's edge: zeros out there."""
        e, side, pixels = self.e, self.s.pixels, []
        for i in range(side):
            row = top + i
            row_inside = e.both(row >= 0, row < self.in_h)
            for j in range(side):
                column = left + j
                exists = e.both(row_inside, e.both(column >= 0, column < self.in_w))
                place = image.at(row * self.x_h + column * self.x_w)
                pixels.append(Ptr(e, e.ir.select(exists, place.value, self.zeros.value)))
        return pixels

    def _channels(self, pixels: list[Ptr], to: Ptr, step: Int) -> None:
        e = self.e
        with e.loop("c", self.channels, step=e.lanes) as c:
            mask = e.mask(self.channels - c.index, e.lanes) if self.s.masked else None
            self._transform([p.at(c.index) for p in pixels], to.at(c.index), step, mask)

    def _transform(self, pixels: list[Ptr], to: Ptr, step: Int, mask: object) -> None:
        """The matrix from both sides for one vector of channels: columns into `room`, rows from there."""
        e, s, room = self.e, self.s, self.room
        side, points = s.pixels, s.points
        for j in range(side):
            column = [flat.load(pixels[k * side + j], e.lanes, mask) for k in range(side)]
            for i, value in enumerate(apply_matrix(e, s.matrix, column)):
                room.at((i * side + j) * e.lanes).store(value, align=4 * e.lanes)
        for i in range(points):
            row = [room.at((i * side + j) * e.lanes).load(e.lanes, align=4 * e.lanes) for j in range(side)]
            for j, value in enumerate(apply_matrix(e, s.matrix, row)):
                flat.store(to.at(step * (i * points + j)), value, mask)


def emit_input(e: Emitter, s: InputSchedule) -> None:
    """One chunk: the transforms of a range of a batch's tiles."""
    tiles, first_tile, per_chunk = e.fields("tiles first_tile tiles_per_chunk")
    reader = TileReader(e, s)
    start = e.chunk * per_chunk
    with e.loop("tile", e.smaller(start + per_chunk, tiles), start=start) as tile:
        to = e.pointer("v").at(tile.index * reader.channels)
        reader.read(tile.index + first_tile, to, tiles * reader.channels)


def emit_weight_sums(e: Emitter, s: WeightSchedule) -> None:
    """Weight gradient from its products: At M A of F(r, m) for a range of input channels of one channel block.

    `products` is [xi][block][channel][width], `sums` [block][tap][channel][width].
    """
    f, r = winograd(s.taps, s.outputs), s.taps
    channels, per_chunk, chunks_per_block, blocks = e.fields("channels channels_per_chunk chunks_per_block blocks")
    width = s.vectors * e.lanes
    block, part = e.chunk // chunks_per_block, e.chunk % chunks_per_block
    products = e.pointer("products").at(block * channels * width)
    sums = e.pointer("sums").at(block * channels * (r * r * width))
    step = blocks * channels * width
    first = part * per_chunk
    with e.loop("c", e.smaller(first + per_chunk, channels), start=first) as loop:
        lines: list[list[list[Vec]]] = [[] for _ in range(s.vectors)]  # [v][j][i]
        for j in range(f.size):
            loaded: list[list[Vec]] = [[] for _ in range(s.vectors)]
            for i in range(f.size):  # vectors of one cache line together, as in `emit_weights`
                place = products.at(step * (i * f.size + j) + loop.index * width)
                for v in range(s.vectors):
                    loaded[v].append(place.at(v * e.lanes).load(e.lanes))
            for v in range(s.vectors):
                lines[v].append(apply_matrix(e, f.At, loaded[v]))
        for v, columns in enumerate(lines):
            for i in range(r):
                for j, value in enumerate(apply_matrix(e, f.At, [columns[k][i] for k in range(f.size)])):
                    at = channels * width * (r * i + j) + loop.index * width + v * e.lanes
                    sums.at(at).store(value)
