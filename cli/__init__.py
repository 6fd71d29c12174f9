"""The command `cortexflow`: parsing and printing only; heavy imports wait inside the commands."""
