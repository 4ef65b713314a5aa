#!/usr/bin/env python3
"""Writes the traces of examples/traces/, the same ones every time: traces.py [DIRECTORY].

Arrivals are Poisson processes whose rate changes, thinned from one at the highest rate (Lewis and Shedler, 1979).
Only random.random() is drawn from, whose sequence for a seed Python keeps the same from version to version.
"""

import math
import random
import sys
from pathlib import Path

TENANTS = 40


class Source:
    def __init__(self, seed):
        self.uniform = random.Random(seed).random

    def exponential(self, mean):
        return -mean * math.log(1.0 - self.uniform())

    def lognormal(self, median, sigma):
        radius, angle = math.sqrt(-2.0 * math.log(1.0 - self.uniform())), math.tau * self.uniform()
        return median * math.exp(sigma * radius * math.cos(angle))

    def pareto(self, least, most, shape):
        """Bounded at both ends, so that one request cannot be the whole trace."""
        low, high = least**-shape, most**-shape
        return (low - self.uniform() * (low - high)) ** (-1.0 / shape)

    def poisson(self, rate, highest, begin, end):
        """Times at which something happens `rate(time)` times a second."""
        time = begin + self.exponential(1.0 / highest)
        while time < end:
            if self.uniform() * highest < rate(time):
                yield time
            time += self.exponential(1.0 / highest)


def step():
    """Nothing, then at once 60 requests a second for a minute, then half of it, then nothing, then once more."""
    source = Source(1)
    levels = [(30, 90, 60), (90, 150, 30), (240, 270, 60)]
    for begin, end, rate in levels:
        for time in source.poisson(lambda _, rate=rate: rate, rate, begin, end):
            yield time, "web", source.lognormal(50, 0.2)


def diurnal():
    """A day in twelve minutes: a quiet night, a busy noon, an evening peak."""
    source = Source(2)

    def rate(time):
        hour = time / 30
        noon, evening = math.exp(-(((hour - 12) / 3) ** 2)), math.exp(-(((hour - 20) / 1.5) ** 2))
        return 0.05 + 22 * noon + 30 * evening

    for time in source.poisson(rate, 60, 0, 720):
        yield time, "web", source.lognormal(80, 0.5)


def spiky():
    """A trickle with spikes of two seconds that come at any time, each of another height."""
    source = Source(3)
    begin = 0.0
    spikes = []
    while begin < 850:
        begin += 10 + source.exponential(35)
        spikes.append((begin, 20 + 180 * source.uniform()))

    def rate(time):
        return 0.5 + sum(height for begin, height in spikes if begin <= time < begin + 2)

    for time in source.poisson(rate, 420, 0, 900):
        yield time, "web", source.lognormal(60, 0.3)


def many_idle():
    """40 tenants, most of them idle at any time: who comes has some requests, then goes for minutes."""
    source = Source(4)
    for tenant in range(TENANTS):
        pause = 60 * 4 ** (3 * tenant / TENANTS)
        time = source.exponential(pause)
        while time < 1800:
            for _ in range(1 + int(source.exponential(5))):
                yield time, f"tenant-{tenant:02}", source.lognormal(40, 0.6)
                time += source.exponential(1.5)
            time += source.exponential(pause)


def bursty():
    """Bursts of bursts whose lengths, and whose requests' lengths, have heavy tails; two pools."""
    source = Source(5)
    for pool, pause, rate in [("api", 8, 40), ("web", 20, 15)]:
        time = source.exponential(pause)
        while time < 900:
            end = time + source.pareto(0.2, 30, 1.1)
            for arrival in source.poisson(lambda _, rate=rate: rate, rate, time, min(end, 900)):
                yield arrival, pool, source.pareto(10, 5000, 1.3)
            time = end + source.pareto(pause / 4, pause * 20, 1.2)


def write(path, requests):
    lines = [f"{time:.4f},{pool},{service:.1f}\n" for time, pool, service in sorted(requests)]
    path.write_text("arrival_s,pool,service_ms\n" + "".join(lines), newline="\n")


CONFIGURATION = """\
# The pools of {what}, for
#
#   weir simulate {trace} -c {path}
#
# Written by scripts/traces.py.

[[listener]]
address = "127.0.0.1:8080"
"""

POOL = """
[pool.{name}]
image = "hello"
soft_limit = {soft}
hard_limit = {hard}

[[route]]
host = "{name}.example"
pool = "{name}"
"""


def configuration(what, trace, path, names, soft, hard):
    pools = [POOL.format(name=name, soft=soft, hard=hard) for name in names]
    return CONFIGURATION.format(what=what, trace=trace, path=path) + "".join(pools)


def main():
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/traces")
    directory.mkdir(parents=True, exist_ok=True)
    for name, trace in [("step", step), ("diurnal", diurnal), ("spiky", spiky), ("many-idle", many_idle), ("bursty", bursty)]:
        write(directory / f"{name}.csv", trace())
    here = "examples/traces"
    shared = configuration("step, diurnal, spiky and bursty", f"{here}/step.csv", f"{here}/weir.toml", ["api", "web"], 2, 4)
    (directory / "weir.toml").write_text(shared, newline="\n")
    names = [f"tenant-{tenant:02}" for tenant in range(TENANTS)]
    many = configuration("many-idle", f"{here}/many-idle.csv", f"{here}/many-idle.toml", names, 2, 4)
    (directory / "many-idle.toml").write_text(many, newline="\n")


if __name__ == "__main__":
    main()
