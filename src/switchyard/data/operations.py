"""The operations of this room that people start: what their units run."""

from typing import Any

from switchyard.data import backup as backups
from switchyard.data import drill, refresh, restore, settings, source
from switchyard.engine.operation import Operation
from switchyard.errors import Exit, SwitchyardError


def perform(op: Operation, request: dict[str, Any]) -> None:
    """Run an operation by its kind; its result tells how it ended."""
    try:
        if op.kind == "backup":
            _back_up(op, str(request.get("type", "incr")))
        elif op.kind == "drill":
            _drill(op, str(request.get("plan", "")))
        elif op.kind == "refresh-data":
            refresh.refresh(op, source.parse(request["order"], op.paths.name))
        else:
            restore.restore(op, restore.Wish(**request["wish"]))
    except SwitchyardError as error:
        op.give_up(error)


def _back_up(op: Operation, kind: str) -> None:
    op.result.message = backups.job(settings.load(op.paths.name), kind, op.say)
    op.result.changed = True


def _drill(op: Operation, plan: str) -> None:
    report = drill.drill(settings.load(op.paths.name), op.say, plan)
    op.result.message = report.sentence
    op.result.details = "\n".join(
        f"{'ok    ' if check.ok else 'FAILED'} {check.name}{': ' if check.detail else ''}{check.detail}"
        for check in report.checks
    )
    if not report.ok:
        op.result.code = int(Exit.FAILED)
