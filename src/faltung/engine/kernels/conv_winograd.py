"""3x3 convolution at stride 1 through Winograd's F(m x m, 3 x 3), m 4 or 2: (m + 2)^2 multiplications for m^2 outputs.

    region 1 (chunks: tiles)            V[xi] = Bt d B          input tiles of (m+2)^2 pixels, m apart
    region 2 (chunks: tile block, channel block)
      for xi < (m+2)^2:                 M[xi] = V[xi] U[xi]     the register tile of `microkernel`, over input channels
      for tile:                         y = At M A + bias       m x m pixels, clipped at the plane's edge

The weight gradient is F(3 x 3, m x m), whose Bt is the same: the output gradient's tiles take the place of g, products
sum over tiles (with `conv_backward_weights`, xi as its groups), and At M A gives the 3 x 3 taps.

U = G g Gt is transformed once per weight. All transforms work on vectors of channels. The tiles of a call go through
both regions in batches whose V stays in the shared cache. Backward-data is the same over the flipped kernel.

    V   [tile block][xi][tile][channel]          U   [channel block][xi][channel][vectors * lanes]
    M   [xi][tile][vectors * lanes], in the thread's scratch

Registers: input transform m + 2 loads and as many results at a time, columns through a small stack array; product
pixels * vectors + vectors + 1; output transform as the input's.
"""

from __future__ import annotations

from dataclasses import dataclass

from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Steps
from faltung.engine.kernels import epilogue
from faltung.engine.kernels.linear_form import apply_matrix
from faltung.engine.kernels.microkernel import Row, accumulate
from faltung.engine.kernels.winograd_matrices import Matrix, winograd

INPUT_FIELDS = (
    "x v zeros tiles first_tile tiles_h tiles_w channels in_h in_w before_h before_w tiles_per_chunk tile_block "
    "x_n x_h x_w block_floats"
)
PRODUCT_FIELDS = (
    "v u bias y scratch tiles first_tile tile_blocks tile_block channels channel_blocks out_channels "
    f"tiles_h tiles_w out_h out_w y_n y_h y_w block_floats panel_floats scratch_floats {epilogue.FIELDS}"
)
WEIGHT_FIELDS = "packed u channels channels_per_chunk chunks_per_block"
WEIGHT_SUM_FIELDS = "products sums channels channels_per_chunk chunks_per_block blocks"


@dataclass(frozen=True, slots=True)
class InputSchedule:
    """The input transform, or that of the output gradient."""

    outputs: int  # m, the step from tile to tile
    masked: bool  # channels are no multiple of the lanes
    gradient: bool = False  # tiles of m x m pixels through G of F(3, m), for the weight gradient

    @property
    def pixels(self) -> int:
        """Pixels of a tile's side."""
        return self.outputs if self.gradient else self.outputs + 2

    @property
    def matrix(self) -> Matrix:
        """What a tile is multiplied with from both sides."""
        return winograd(3, self.outputs).G if self.gradient else winograd(self.outputs).Bt


@dataclass(frozen=True, slots=True)
class ProductSchedule:
    """The product and the output transform."""

    outputs: int  # m
    tiles: int  # of a register tile
    vectors: int
    narrow: bool  # some register tiles have one tile less
    unroll: int
    exact: bool  # channels are a multiple of unroll
    tail_vectors: int
    masked: bool
    by_block: bool  # chunks run over tile blocks first, so that a thread keeps to its part of U, not to its part of V
    epilogue: Steps = NO_STEPS


@dataclass(frozen=True, slots=True)
class WeightSchedule:
    """The weight transform."""

    outputs: int  # m
    vectors: int


def emit_weights(e: Emitter, s: WeightSchedule) -> None:
    """U = G g Gt for a range of input channels of one channel block; `packed` is [block][tap][channel][width]."""
    f = winograd(s.outputs)
    channels, per_chunk, chunks_per_block = e.fields("channels channels_per_chunk chunks_per_block")
    width = s.vectors * e.lanes
    block, part = e.chunk // chunks_per_block, e.chunk % chunks_per_block
    packed = e.pointer("packed").at(block * channels * (9 * width))
    u = e.pointer("u").at(block * channels * (f.size * f.size * width))
    step = channels * width
    first = part * per_chunk
    with e.loop("c", e.smaller(first + per_chunk, channels), start=first) as loop:
        for v in range(s.vectors):
            at = loop.index * width + v * e.lanes
            source, to = packed.at(at), u.at(at)
            g = [[source.at(step * (3 * i + j)).load(e.lanes) for j in range(3)] for i in range(3)]
            left = [apply_matrix(e, f.G, [g[i][j] for i in range(3)]) for j in range(3)]  # [j][xi]
            for i in range(f.size):
                for j, value in enumerate(apply_matrix(e, f.G, [left[k][i] for k in range(3)])):
                    to.at(step * (i * f.size + j)).store(value)


def emit_input(e: Emitter, s: InputSchedule) -> None:
    """One chunk: the transforms of a range of tiles, every (m + 2)^2 vectors per vector of channels."""
    side, points = s.pixels, s.outputs + 2
    tiles, first_tile, tiles_h, tiles_w, channels = e.fields("tiles first_tile tiles_h tiles_w channels")
    in_h, in_w, before_h, before_w, per_chunk, tile_block = e.fields(
        "in_h in_w before_h before_w tiles_per_chunk tile_block"
    )
    x_n, x_h, x_w, block_floats = e.fields("x_n x_h x_w block_floats")
    x, zeros, v = e.pointer("x"), e.pointer("zeros"), e.pointer("v")
    room = e.stack(points * side * e.lanes)
    start = e.chunk * per_chunk
    with e.loop("tile", e.smaller(start + per_chunk, tiles), start=start) as loop:
        tile = loop.index
        at = tile + first_tile
        n, th, tw = at // tiles_w // tiles_h, at // tiles_w % tiles_h, at % tiles_w
        top, left = th * s.outputs - before_h, tw * s.outputs - before_w
        image = x.at(n * x_n)
        pixels = []
        for i in range(side):
            row = top + i
            row_inside = e.both(row >= 0, row < in_h)
            for j in range(side):
                column = left + j
                inside = e.both(row_inside, e.both(column >= 0, column < in_w))
                pixels.append(Ptr(e, e.ir.select(inside, image.at(row * x_h + column * x_w).value, zeros.value)))
        to = v.at(tile // tile_block * block_floats + tile % tile_block * channels)
        step = tile_block * channels
        whole = channels - channels % e.lanes
        with e.loop("c", whole, step=e.lanes) as c:
            _transform_tile(e, s, [p.at(c.index).load(e.lanes) for p in pixels], room, to.at(c.index), step, None)
        if s.masked:
            mask = e.mask(channels - whole, e.lanes)
            loaded = [p.at(whole).load_masked(mask, e.lanes) for p in pixels]
            _transform_tile(e, s, loaded, room, to.at(whole), step, mask)


def _transform_tile(
    e: Emitter, s: InputSchedule, pixels: list[Vec], room: Ptr, to: Ptr, step: Int, mask: object
) -> None:
    """The matrix from both sides for one vector of channels: columns into `room`, rows from there."""
    side, points = s.pixels, s.outputs + 2
    for j in range(side):
        for i, value in enumerate(apply_matrix(e, s.matrix, [pixels[k * side + j] for k in range(side)])):
            room.at((i * side + j) * e.lanes).store(value, align=4 * e.lanes)
    for i in range(points):
        row = [room.at((i * side + j) * e.lanes).load(e.lanes, align=4 * e.lanes) for j in range(side)]
        for j, value in enumerate(apply_matrix(e, s.matrix, row)):
            place = to.at(step * (i * points + j))
            if mask is None:
                place.store(value)
            else:
                place.store_masked(value, mask)


def emit_weight_sums(e: Emitter, s: WeightSchedule) -> None:
    """Weight gradient from its products: At M A of F(3, m) for a range of input channels of one channel block.

    `products` is [xi][block][channel][width], `sums` [block][tap][channel][width].
    """
    f = winograd(3, s.outputs)
    channels, per_chunk, chunks_per_block, blocks = e.fields("channels channels_per_chunk chunks_per_block blocks")
    width = s.vectors * e.lanes
    block, part = e.chunk // chunks_per_block, e.chunk % chunks_per_block
    products = e.pointer("products").at(block * channels * width)
    sums = e.pointer("sums").at(block * channels * (9 * width))
    step = blocks * channels * width
    first = part * per_chunk
    with e.loop("c", e.smaller(first + per_chunk, channels), start=first) as loop:
        for v in range(s.vectors):
            at = loop.index * width + v * e.lanes
            columns = []  # [j][i]
            for j in range(f.size):
                loaded = [products.at(step * (i * f.size + j) + at).load(e.lanes) for i in range(f.size)]
                columns.append(apply_matrix(e, f.At, loaded))
            for i in range(3):
                for j, value in enumerate(apply_matrix(e, f.At, [columns[k][i] for k in range(f.size)])):
                    sums.at(channels * width * (3 * i + j) + at).store(value)


class _Product:
    """The run-time numbers of one chunk of the product."""

    def __init__(self, e: Emitter, s: ProductSchedule) -> None:
        self.e, self.s, self.f = e, s, winograd(s.outputs)
        for name in PRODUCT_FIELDS.split():
            setattr(self, name, e.field(name))
        if s.by_block:
            self.tile_group, self.block = e.chunk % self.tile_blocks, e.chunk // self.tile_blocks
        else:
            self.block, self.tile_group = e.chunk % self.channel_blocks, e.chunk // self.channel_blocks
        self.width = s.vectors * e.lanes
        self.first = self.tile_group * self.tile_block
        self.count = e.smaller(self.tile_block, self.tiles - self.first)
        self.V = e.pointer("v").at(self.tile_group * self.block_floats)
        self.U = e.pointer("u").at(self.block * self.panel_floats)
        self.finish = epilogue.Finish(e, s.epilogue)
        self.M = e.pointer("scratch").at(e.thread * self.scratch_floats)

    def __getattr__(self, name: str) -> Int:  # fields, set in __init__
        raise AttributeError(name)


def emit_product(e: Emitter, s: ProductSchedule) -> None:
    """One chunk: all products of a block of tiles with a block of output channels, and their outputs."""
    k = _Product(e, s)
    if s.tail_vectors or s.masked:
        with e.either(k.block.equals(k.channel_blocks - 1)) as (yes, no):
            with yes:
                _multiply(k, s.tail_vectors or s.vectors, s.masked)
            with no:
                _multiply(k, s.vectors, False)
    else:
        _multiply(k, s.vectors, False)


def _multiply(k: _Product, vectors: int, masked: bool) -> None:
    e, s = k.e, k.s
    tiles = (k.count + (s.tiles - 1)) // s.tiles
    lacking = tiles * s.tiles - k.count
    even = lacking <= tiles
    full = e.choose(even, tiles - lacking, k.count // s.tiles) * s.tiles
    with e.loop("xi", e.int(k.f.size * k.f.size)) as xi:
        panel = k.U.at(xi.index * k.channels * k.width)
        source = k.V.at(xi.index * k.tile_block * k.channels)
        to = k.M.at(xi.index * k.tile_block * k.width)
        with e.loop("t", full, step=s.tiles) as t:
            _register_tile(k, s.tiles, vectors, source, panel, to, t.index)
        end = full
        if s.narrow and s.tiles > 1:
            end = e.choose(even, k.count, full)
            with e.loop("t1", end, start=full, step=s.tiles - 1) as t:
                _register_tile(k, s.tiles - 1, vectors, source, panel, to, t.index)
        if s.narrow and s.tiles > 2:
            with e.loop("t2", k.count, start=end) as t:
                _register_tile(k, 1, vectors, source, panel, to, t.index)
    mask = e.mask(k.out_channels - k.block * k.width - (vectors - 1) * e.lanes, e.lanes) if masked else None
    with e.loop("tile", k.count) as tile:
        _outputs(k, tile.index, vectors, mask)


def _register_tile(k: _Product, tiles: int, vectors: int, source: Ptr, panel: Ptr, to: Ptr, first: Int) -> None:
    e, s = k.e, k.s
    accs = [e.zero() for _ in range(tiles * vectors)]
    row = Row.of(source.at(first * k.channels), k.channels, tiles)
    accs, _ = accumulate(e, [row], panel, k.channels, accs, vectors, s.unroll, s.exact, panel_vectors=s.vectors)
    for t in range(tiles):
        for v in range(vectors):
            to.at((first + t) * k.width + v * e.lanes).store(accs[t * vectors + v])


def _outputs(k: _Product, tile: Int, vectors: int, mask: object) -> None:
    """At M A + bias of one tile."""
    e, f, m = k.e, k.f, k.s.outputs
    at = k.first_tile + k.first + tile
    n, th, tw = at // k.tiles_w // k.tiles_h, at // k.tiles_w % k.tiles_h, at % k.tiles_w
    top, left = th * m, tw * m
    place = n * k.y_n + top * k.y_h + left * k.y_w + k.block * k.width
    y = e.pointer("y").at(place)
    residual = None if k.finish.residual is None else k.finish.residual.at(place)
    bias = e.pointer("bias").at(k.block * k.width)
    source = k.M.at(tile * k.width)
    step = k.tile_block * k.width
    whole = e.both(top + m <= k.out_h, left + m <= k.out_w)
    for v in range(vectors):
        part = source.at(v * e.lanes)
        columns = []  # [j][i]
        for j in range(f.size):
            loaded = [part.at(step * (i * f.size + j)).load(e.lanes) for i in range(f.size)]
            columns.append(apply_matrix(e, f.At, loaded))
        offset = bias.at(v * e.lanes).load(e.lanes)
        results = []
        for i in range(m):
            row = apply_matrix(e, f.At, [columns[j][i] for j in range(f.size)])
            results.append([value + offset for value in row])
        last = mask if v == vectors - 1 else None

        def write(i: int, j: int, v: int = v, results: list[list[Vec]] = results, last: object = last) -> None:
            at = k.y_h * i + k.y_w * j + v * e.lanes
            add = None if residual is None else residual.at(at)
            _store(y.at(at), k.finish(results[i][j], k.block * k.width + v * e.lanes, add, last), last)

        with e.either(whole) as (yes, no):
            with yes:
                for i in range(m):
                    for j in range(m):
                        write(i, j)
            with no:
                for i in range(m):
                    for j in range(m):
                        with e.when(e.both(top + i < k.out_h, left + j < k.out_w)):
                            write(i, j)


def _store(to: Ptr, value: Vec, mask: object) -> None:
    if mask is None:
        to.store(value)
    else:
        to.store_masked(value, mask)
