"""Runs one piece of user code inside the sandbox and answers in JSON.

Imported once, before the memory image is taken; everything here is in the image. The host's end is ``guest/interpreter/interpreter.ts``,
which calls :func:`sandbox_runner.execution.run` with bytes and reads bytes back: no object ever crosses.
"""
