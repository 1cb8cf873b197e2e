"""A trace in a terminal: what `tracerouted trace` asks, shows and says.

`options` makes the command's options from the fields of a request; `board` folds a trace's events into the state that
is shown; `table` and `words` are its text, pure; `screen` puts that text on a terminal, or into a pipe; `command` is
the whole run, over the library or a service alike.
"""
