"""The controller: the path of an event, one file per step.

intake.py     EVENTS → decode → match → accept           decode.py, match.py: pure
accept.py     the request record, then one run message per function, then the ack
dispatch.py   RUNS → read record and result → plan → engine.start          decision.py: pure
custody.py    the runs this controller holds: one owner, heartbeats, slots
follow.py     RESULTS and engine.watch → which held runs may be finished
finish.py     reply → next topic → ack → release
deadletter.py what could not become runs, with its reason
control.py    the control services: functions, explain, reload, pause, resume, cancel, logs, redrive
app.py        composition root: builds everything, one TaskGroup, order of start and stop
"""
