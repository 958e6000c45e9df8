"""The login shell of a simulated group: what sshd gives it goes to the simulator, and what that says comes back.

    python3 shell.py SOCKET
"""

import os
import select
import socket
import sys


def main():
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[1])
    stdin, stdout = 0, 1
    readers = [stdin, line]
    while line in readers:
        ready, _, _ = select.select(readers, [], [])
        if line in ready:
            said = line.recv(65536)
            if not said:
                return
            while said:
                said = said[os.write(stdout, said) :]
        if stdin in ready:
            typed = os.read(stdin, 65536)
            if typed:
                line.sendall(typed)
            else:
                readers.remove(stdin)
                line.shutdown(socket.SHUT_WR)


try:
    main()
except (BrokenPipeError, ConnectionResetError):
    pass
