"""The parts of the proof. Each of them runs one kind of check and reports the result.

Rules of this file:
    * A part only runs a check and reports. The check itself is elsewhere.
    * A part imports heavy modules when it runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import count
from pathlib import Path

from . import model, planted
from .cluster import move_slots
from .part import Advance, Part, Run, Scale, Table, milliseconds
from .planted_faults import PLANTED

ROOT = Path(__file__).parents[1]

_SANITIZERS = {
    "memory": "AddressSanitizer and UBSan",
    "debug": "Checks of every slot and index",
    "threads": "ThreadSanitizer",
}


def check_model(scale: Scale, progress: Advance) -> Part:
    """Search all states of the model of the protocol."""
    part = Part("model", "The protocol, in all its histories")
    if missing := model.missing():
        part.skipped = f"{missing} is not installed"
        return part
    long = model.LONG if scale.long_model else ()
    questions = [*model.SOUND, *long, *model.FAULTS, *model.LIMITS, *model.NOT_NEEDED]
    answers = []
    for number, question in enumerate(questions):
        progress(number, len(questions), question.name)
        answers.append(model.ask(question))
    part.ok = all(answer.is_as_expected for answer in answers)
    part.trouble = [
        f"{answer.question.name}: {answer.verdict} (make model ARGS='--only"
        f" {answer.question.name}')"
        for answer in answers
        if not answer.is_as_expected
    ]
    states = sum(answer.states for answer in answers if answer.question.expected == model.HOLDS)
    caught = sum(answer.question.expected == model.CAUGHT for answer in answers)
    part.summary = f"{states:,} states searched to the end, and {caught} faults in the model found."
    part.tables = [
        Table(
            "model",
            ("run", "what", ">states", "verdict"),
            [
                (
                    f"`{answer.question.name}`",
                    answer.question.about,
                    f"{answer.states:,}",
                    answer.verdict,
                )
                for answer in answers
            ],
        )
    ]
    part.figures = {"states": states, "faults": caught}
    return part


def simulate(scale: Scale, progress: Advance) -> Part:
    """Run random stories of simulated nodes, servers and connections."""
    from tests.simulation.simulate import Report  # noqa: PLC0415
    from tests.simulation.simulate import simulate as tell  # noqa: PLC0415

    part = Part("simulation", "Simulated stories")

    def told(report: Report) -> None:
        progress(report.happened, scale.simulated_events, f"seed {report.seeds}")

    report = tell(count(scale.seed), max_events=scale.simulated_events, told=told)
    part.ok = report.broken is None and report.happened >= scale.simulated_events
    part.trouble = [str(report.broken)] if report.broken else []
    faults = sum(report.faults.values())
    part.summary = (
        f"{report.happened:,} events in {report.seeds:,} stories"
        f" ({report.simulated_s / 3600:,.1f} hours of simulated time), {faults:,} faults,"
        f" {report.terms:,} terms: {report.overlaps} overlaps, and {report.excused:,} that the"
        " design excuses (a server that lost data, or its clock jumped)."
    )
    takeovers = report.takeovers()
    part.tables = [
        Table(
            "simulation",
            ("fault", ">injected", ">takeovers", ">p50, ms", ">max, ms"),
            [
                (
                    kind,
                    f"{number:,}",
                    f"{takeovers[kind][0]:,}" if kind in takeovers else "-",
                    milliseconds(takeovers[kind][1] if kind in takeovers else None),
                    milliseconds(takeovers[kind][2] if kind in takeovers else None),
                )
                for kind, number in sorted(report.faults.items())
            ],
        )
    ]
    part.figures = {
        "events": report.happened,
        "stories": report.seeds,
        "faults": faults,
        "terms": report.terms,
        "overlaps": report.overlaps,
        "excused": report.excused,
    }
    return part


def run_machine(scale: Scale, progress: Advance) -> Part:
    """Run the stateful machine on examples that Hypothesis generates."""
    from hypothesis import settings  # noqa: PLC0415
    from tests.simulation.machine import LONG, explore  # noqa: PLC0415

    part = Part("machine", "Stories that Hypothesis makes up")
    progress(0, 1, f"{scale.machine_examples:,} examples")
    try:
        explore(settings(LONG, max_examples=scale.machine_examples))
    # It raises the error of the shortest example, which is in the notes of the error.
    except Exception as error:  # noqa: BLE001
        part.trouble = ["\n".join([repr(error), *getattr(error, "__notes__", ())])]
    part.ok = not part.trouble
    part.summary = f"{scale.machine_examples:,} examples of the stateful machine."
    return part


def strike(scale: Scale, progress: Advance) -> Part:
    """Run rounds of faults against real processes and real servers."""
    from tests.faults.rounds import run_rounds  # noqa: PLC0415

    part = Part("chaos", "Chaos on real processes")
    done = 0

    def told(line: str) -> None:
        nonlocal done
        progress(done, scale.chaos_rounds, line)
        done += 1

    redis_server = shutil.which("redis-server")
    binaries = (None, redis_server) if redis_server else (None,)
    report = run_rounds(scale.chaos_rounds, scale.seed, told, binaries=binaries)
    part.ok = report.ok and report.rounds >= scale.chaos_rounds
    part.trouble = [
        f"round {kept.round} ({', '.join(kept.faults)}): {kept.words}\n  {kept.folder}\n"
        f"  {kept.replay}"
        for kept in report.violations
    ]
    servers = ", ".join(f"{rounds} on {name}" for name, rounds in sorted(report.servers.items()))
    part.summary = (
        f"{report.rounds} rounds ({servers}): {report.overlaps} overlaps, and"
        f" {report.excused_overlaps} that the design excuses; {len(report.violations)} violations."
    )
    part.tables = [
        Table(
            "chaos",
            (
                "fault",
                ">rounds",
                ">without a leader: p50, ms",
                ">p99",
                ">max",
                ">led again after the heal: max, ms",
                ">excused",
            ),
            [
                (
                    name,
                    str(fault.rounds),
                    milliseconds(fault.gaps_ms["p50"]),
                    milliseconds(fault.gaps_ms["p99"]),
                    milliseconds(fault.gaps_ms["max"]),
                    milliseconds(fault.led_again_ms["max"]),
                    str(fault.excused),
                )
                for name, fault in sorted(report.faults.items())
            ],
        )
    ]
    part.figures = asdict(report)
    return part


def fuzz(scale: Scale, progress: Advance) -> Part:
    """Fuzz the parser and the core with bytes that no server sends."""
    from .fuzz.build import missing  # noqa: PLC0415
    from .fuzz.campaign import run  # noqa: PLC0415

    part = Part("fuzz", "Hostile bytes")
    if not_there := missing():
        part.skipped = not_there
        return part
    total = scale.fuzzer_executions
    report = run(total, on_progress=lambda done: progress(done, total))
    part.ok = not report.crashes and report.total >= total
    part.trouble = [
        f"{crash.target}: {crash.what}\n  {crash.data!r}\n  kept as {crash.kept}"
        for crash in report.crashes
    ]
    guided = "guided by coverage" if report.guided else "not guided by coverage"
    part.summary = (
        f"{report.total:,} executions, {guided}, under AddressSanitizer and UBSan"
        f" ({report.compiler}): {len(report.crashes)} broken."
    )
    part.tables = [
        Table(
            "fuzz",
            ("target", ">executions", ">edges reached", ">features"),
            [
                (
                    target,
                    f"{executions:,}",
                    f"{report.covered[target].edges:,} of {report.covered[target].all_edges:,}",
                    f"{report.covered[target].features:,}",
                )
                for target, executions in report.executions.items()
            ],
        )
    ]
    part.figures = {"executions": report.total, "crashes": len(report.crashes)}
    return part


def sanitize(scale: Scale, progress: Advance) -> Part:
    """Run tests of the core under sanitizers, and on the debug build."""
    part = Part("sanitize", "The core under sanitizers")
    told = []
    for number, (kind, options) in enumerate(scale.sanitized):
        progress(number, len(scale.sanitized), kind)
        done = subprocess.run(
            [ROOT / "tests" / "sanitize" / "run", kind, *options],
            env=os.environ | {"PYTHON": sys.executable},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = done.stdout + done.stderr
        if done.returncode == 2:
            part.skipped = said.strip().splitlines()[-1]
            return part
        passed = re.search(r"=* (\d+ passed.*?) =*$", said, re.MULTILINE)
        if done.returncode or passed is None:
            part.trouble.append(f"{kind} (make sanitize KIND={kind}):\n{said[-2000:]}")
        else:
            told.append(f"{_SANITIZERS[kind]}: {passed[1]}, nothing reported.")
    part.ok = not part.trouble
    part.summary = " ".join(told)
    return part


def plant(scale: Scale, progress: Advance) -> Part:
    """Plant faults in copies of our own code, and check that the tests find each of them."""
    part = Part("planted", "Faults planted in our own code")
    faults = PLANTED[: scale.planted]
    findings: list[planted.Finding] = []

    def told(finding: planted.Finding) -> None:
        findings.append(finding)
        progress(len(findings), len(faults), finding.fault.name)

    progress(0, len(faults), faults[0].name)
    planted.look_for_all(faults, told)
    found = sum(finding.is_found for finding in findings)
    part.ok = found == len(faults)
    part.trouble = [
        f"{finding.fault.name}: {finding.verdict} (make planted ARGS={finding.fault.name})"
        for finding in findings
        if not finding.is_found
    ]
    part.summary = f"{found} of {len(faults)} are found by a test that passes without them."
    part.tables = [
        Table(
            "planted",
            ("planted", "found by", ">after, s"),
            [
                (
                    finding.fault.about,
                    f"`{finding.test}`" if finding.is_found else finding.verdict,
                    f"{finding.seconds:.1f}",
                )
                for finding in findings
            ],
        )
    ]
    part.figures = {"found": found, "planted": len(faults)}
    return part


def soak(scale: Scale, progress: Advance) -> Part:
    """Run many elections for long under random faults, and measure memory and descriptors."""
    from tests.faults.soak import soak as run  # noqa: PLC0415

    part = Part("soak", "The soak")
    began = time.monotonic()

    def told(line: str) -> None:
        progress((time.monotonic() - began) / 60, scale.soak_minutes, line)

    report = run(scale.soak_minutes, scale.soak_elections, 4, scale.seed, told)
    part.ok = report.ok
    part.trouble = [
        f"round {kept.round} ({', '.join(kept.faults)}): {kept.words}\n  {kept.folder}"
        for kept in report.rounds.violations
    ]
    part.trouble += [f"{usage.node} grew" for usage in report.usage if not usage.is_flat]
    part.summary = (
        f"{report.minutes:g} minutes, {report.elections:,} elections, 4 nodes,"
        f" {report.rounds.rounds} rounds of faults: {report.rounds.overlaps} overlaps,"
        f" {len(report.rounds.violations)} violations."
    )
    part.tables = [
        Table(
            "soak",
            ("node that lived through it", ">memory grew by, KiB", ">more descriptors", "flat"),
            [
                (
                    usage.node,
                    f"{usage.grown_bytes() / 1024:,.0f}",
                    str(usage.more_descriptors()),
                    "yes" if usage.is_flat else "NO",
                )
                for usage in report.usage
            ],
        )
    ]
    part.figures = {"rounds": report.rounds.rounds, "minutes": report.minutes}
    return part


PARTS: dict[str, Run] = {
    "model": check_model,
    "simulation": simulate,
    "machine": run_machine,
    "fuzz": fuzz,
    "sanitize": sanitize,
    "planted": plant,
    "chaos": strike,
    "cluster": move_slots,
    "soak": soak,
}
"""The parts by name, in the order in which they are run."""
