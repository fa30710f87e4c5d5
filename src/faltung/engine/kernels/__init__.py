"""Generated kernels, one topic per file; `engine.registry` names them, nothing else imports them from above."""
