"""The servers that flows and clusters need, on this machine: started, looked at and ended with one command."""
