"""The commands of `inferry`, one module each; `cli` imports a command's module when it is asked for."""
