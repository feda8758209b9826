"""Runs twistd as a child process of a test, so that SIGTERM does not cost the coverage of the child.

``twistd`` ends by the signal that stopped it, which leaves no time to write what was measured. The exit status
that tests look at is that of failures, which stays as it is.
"""

import signal
import sys

from twisted.application import app
from twisted.scripts.twistd import run

# A terminal that closes, or a test runner that goes away, must not leave a daemon behind half-way.
signal.signal(signal.SIGHUP, signal.SIG_IGN)
app._exitWithSignal = lambda _signal: sys.exit(0)
sys.argv = ["twistd", "-n", "--pidfile=", *sys.argv[1:]]
run()
