/** For models: the first that they read of this server. */
export const INSTRUCTIONS = `Runs Python in sandboxes: CPython compiled to WebAssembly, with its standard library and the packages that environments_list names.

- One-off code: run_python {code}. Nothing but files stays. The value of the last expression is the result, so end with the expression that you want to see.
- Work in steps: session_create once, then run_python {session, code}: variables, imports and open files stay, for hours. Keep the id; there is no current session.
- Before a risky step: session_checkpoint, and session_restore when it went wrong. To try two ways at once: session_fork.
- Files: pass small ones in run_python's files, or use files_write; code finds them in its current folder. What code has written: files_list, files_read. Code with a session has the session's files, code without one a workspace of yours.
- A missing package: install_package, then run the code again.
- Figures of matplotlib, and what display() shows, come back as images. Print little; summarise large data instead of printing it.
- There are no shell commands, subprocesses or threads; code is stopped after its timeout. The network is there only as far as the operator allows it.
- A traceback is a normal result: status is "error". isError means that nothing has run, and the text says why.
- status "tool_call_required": the code waits for you. Do what toolCalls ask, then resume_python {handle, results}.`;
