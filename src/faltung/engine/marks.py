"""What a kernel's IR says to the JIT beside its code."""

SCHEDULED = "faltung.scheduled"  # named metadata: the kernel's order of instructions is planned, leave it alone
