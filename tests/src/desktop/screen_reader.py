"""Uses the program as a screen reader does: through AT-SPI, finding things by role and name.

Run under dbus-run-session, with DISPLAY set: screen_reader.py PROGRAM
Ends with status 0 when all was found and did what it says.
"""

import os
import subprocess
import sys
import time

from gi.repository import Gio, GLib

PATIENCE = 60


def say_that_there_is_a_screen_reader():
    """Programs tell what they show only where somebody listens."""
    session = Gio.bus_get_sync(Gio.BusType.SESSION, None)
    for name in ("IsEnabled", "ScreenReaderEnabled"):
        value = GLib.Variant("(ssv)", ("org.a11y.Status", name, GLib.Variant("b", True)))
        session.call_sync(
            "org.a11y.Bus", "/org/a11y/bus", "org.freedesktop.DBus.Properties", "Set",
            value, None, Gio.DBusCallFlags.NONE, -1, None)


def walk(node):
    """The node and all below it."""
    yield node
    for index in range(node.childCount):
        child = node.getChildAtIndex(index)
        if child is not None:
            yield from walk(child)


def wait_for(what, look):
    """What `look` finds, as soon as it finds something."""
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        try:
            found = look()
        except GLib.Error:
            found = None  # it changed while it was walked through
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"waited in vain for {what}")


def main(program):
    say_that_there_is_a_screen_reader()
    import pyatspi

    desktop = pyatspi.Registry.getDesktop(0)
    started = subprocess.Popen([program], stdin=subprocess.DEVNULL)

    def application():
        for app in desktop:
            if app is not None and app.get_process_id() == started.pid:
                return app
        return None

    def named(start, role=None):
        for node in walk(application()):
            if node.name.startswith(start) and (role is None or node.getRole() == role):
                return node
        return None

    try:
        app = wait_for("the program", application)
        wait_for("its widgets", lambda: len(list(walk(app))) > 5)
        for name in ("Look at the demo", "Open a folder", "Create a machine"):
            wait_for(f"the button {name!r}", lambda name=name: named(name, pyatspi.ROLE_PUSH_BUTTON))
        named("Create a machine", pyatspi.ROLE_PUSH_BUTTON).queryAction().doAction(0)
        field = wait_for("the field for the name", lambda: named("Name", pyatspi.ROLE_ENTRY))
        name = field.queryText().getText(0, -1)
        # The dialog's button comes behind the one that opened it.
        create = wait_for("the button that creates", lambda: [
            node for node in walk(application())
            if node.name == "Create" and node.getRole() == pyatspi.ROLE_PUSH_BUTTON])[-1]
        create.queryAction().doAction(0)
        wait_for(f"the machine {name!r}", lambda: named(f"{name}, machine", pyatspi.ROLE_LIST_ITEM))
        print(f"created {name}")
        if os.environ.get("SNAPTREE_SHOW_WIDGETS"):
            for node in walk(app):
                print(f"  {node.getRoleName()}: {node.name}")
    finally:
        started.kill()
        started.wait()


main(sys.argv[1])
