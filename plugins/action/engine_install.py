"""Packs the engine and sends it only to hosts that do not have it."""

from __future__ import annotations

import base64
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control.bundle import make_bundle


class ActionModule(ActionBase):
    """`switchyard.stack.engine_install`: see the module of the same name for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the host for this engine; send it when the host lacks it."""
        super().run(tmp, task_vars)
        bundle = make_bundle()
        arguments = {**self._task.args, "file_name": bundle.file_name}
        name = "switchyard.stack.engine_install"
        result: dict[str, Any] = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        if result.pop("content_needed", False):
            arguments["content"] = base64.b64encode(bundle.content).decode()
            result = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        return result
