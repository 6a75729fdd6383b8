"""What CI systems do, played through: a key at the gate, jobs on a runner, the API, a webhook's receiver."""
