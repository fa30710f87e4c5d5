"""Check and time the named cases.

    python -m bench [--rows TEXT ...] [--modes TEXT ...] [--quick] [--threads N] [--no-torch] [--list]
                    [--json FILE] [--picture FILE]

Each row is checked against float64 on a sample before it is timed. A ratio says how many times longer PyTorch takes.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

from bench import conv, networks, processes, report, roofline
from bench.frameworks import Framework, load
from bench.peak import Bandwidth, Peak, share_taken_by_others
from bench.timing import contest

ROWS: tuple[Any, ...] = (*conv.ROWS, *networks.ROWS)
PEAK = "FMA peak"
BUSY = 0.05  # of the cores used by others: from here on a run is no measurement


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="TEXT", help="only rows whose name contains one of these"
    )
    parser.add_argument(
        "--modes", nargs="+", default=[], metavar="TEXT", help="only these modes, such as forward, eval"
    )
    parser.add_argument("--quick", action="store_true", help="three rounds each, no start times, no memory")
    parser.add_argument("--seconds", type=float, default=2.0, help="for timing one row in one mode (default: 2)")
    parser.add_argument("--threads", type=int, help="for every framework (default: every usable core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw the convolutions under the machine's roofline"
    )
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out even if it is installed")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    return parser.parse_args(arguments)


def chosen(rows: list[str], modes: list[str]) -> list[Any]:
    """Cases whose row and mode match."""
    return [
        row.case(mode)
        for row in ROWS
        for mode in row.modes
        if (not rows or any(text.lower() in row.name.lower() for text in rows))
        and (not modes or any(text in mode for text in modes))
    ]


def measure(case: Any, frameworks: list[Framework], peak: Peak, budget_s: float, rounds: int | None) -> report.Result:
    """Check one case, then time it with every framework and the FMA peak in turns."""
    error = case.check(frameworks[0])
    calls = {framework.name: case.call(framework) for framework in frameworks}
    times = contest({**calls, PEAK: peak}, budget_s, rounds)
    names = list(calls)
    return report.Result(
        row=case.row.name,
        mode=case.mode,
        batch=case.batch,
        flop=case.flop,
        bytes=case.bytes,
        error=error,
        seconds={name: times.median_s(name) for name in names},
        peak_share=times.ratio(PEAK, report.OURS) * case.flop / peak.flop,
        ratios={name: times.ratio(name, report.OURS) for name in names[1:]},
    )


def print_processes(frameworks: list[Framework], threads: int) -> dict[str, Any]:
    """Start times and memory, each from fresh processes."""
    starts = processes.start_times(threads)
    print("\n" + "\n".join(f"{name:40} {seconds:6.3f} s" for name, seconds in starts.items()))
    overhead = {job: processes.run(job, "faltung", threads) for job in ("overhead", "overhead_recorded")}
    plain_us, recorded_us = (1e6 * seconds for seconds in overhead.values())
    print(f"{'one operation on a 4x4 tensor':40} {plain_us:.1f} us, {recorded_us:.1f} us (recorded)")
    busy = {f.lib.__name__: processes.run("busy", f.lib.__name__, threads) for f in frameworks[:2]}
    for name, ratio in busy.items():
        print(f"ResNet-18 beside a busy process, {name:8} {ratio:5.2f} times as long")
    growth = processes.memory_growth(list(dict.fromkeys(f.lib.__name__ for f in frameworks)), threads)
    for name, size_bytes in growth.items():
        print(f"memory of (64, 3, 244, 244) -> 64 channels, {name:8} {size_bytes / 1e6:6.0f} MB above its input")
    return {"start_s": starts, "overhead_s": overhead, "busy_ratio": busy, "memory_bytes": growth}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for."""
    options = parse(arguments)
    cases = chosen(options.rows, options.modes)
    if options.list or not cases:
        print("\n".join(row.name for row in ROWS), file=sys.stdout if options.list else sys.stderr)
        return 0 if options.list else 2
    frameworks, threads = load(options.threads, with_torch=not options.no_torch)
    peak = Peak(threads)
    peak_gflops = peak.flop / contest({PEAK: peak}, 0.2).median_s(PEAK) / 1e9
    print(
        f"{platform.machine()}, {threads} threads, FMA peak {peak_gflops:.0f} GFLOP/s (share: against the same rounds)"
    )
    taken = share_taken_by_others(peak, threads)
    print("\n" + report.header([framework.name for framework in frameworks[1:]]))
    results = []
    for case in cases:
        results.append(measure(case, frameworks, peak, options.seconds, 3 if options.quick else None))
        print(report.line(results[-1]), flush=True)
    print("\n" + "\n".join(report.summary(results)))
    taken = max(taken, share_taken_by_others(peak, threads))
    if taken > BUSY:
        print(f"Others used {taken:.0%} of these cores: the times above say little.")
    more = {} if options.quick or options.rows or options.modes else print_processes(frameworks, threads)
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        bandwidth = Bandwidth()
        rate = bandwidth.bytes / contest({"copy": bandwidth}, 0.5).median_s("copy")
        roofline.draw(results, peak_gflops, rate / 1e9, options.picture)
        print(f"\n{options.picture}: against memory at {rate / 1e9:.0f} GB/s")
    if options.json:
        head = {
            "machine": platform.machine(),
            "threads": threads,
            "peak_gflops": peak_gflops,
            "share_taken_by_others": taken,
        }
        options.json.write_text(json.dumps(head | {"rows": [r.as_dict() for r in results]} | more, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
