"""Sets up sshd, and has it taken back unless the host lets us in again."""

from __future__ import annotations

from ansible_collections.switchyard.stack.plugins.plugin_utils.second_login import GuardedAction


class ActionModule(GuardedAction):
    """`switchyard.stack.sshd_settings`: see the module of the same name for its documentation."""
