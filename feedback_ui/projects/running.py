"""The projects that are served now: for each one its store, to look up who may enter, and its process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from feedback_ui.projects.upstream import Upstream
from rlhf.serving.supervisor import WatchedProcess
from storage.core.database import Database, StoreError
from storage.core.projects_folder import ProjectsFolder
from storage.people import accounts
from storage.people.accounts import Account

log = logging.getLogger("rankloop.projects")


@dataclass(frozen=True, slots=True)
class RunningProject:
    name: str
    store: Database
    upstream: Upstream
    process: WatchedProcess


class RunningProjects:
    """All projects of a folder. `look` follows the folder; everything else only reads, in the front's event loop."""

    def __init__(self, folder: ProjectsFolder, shared: Database, sockets: Path, process: Callable[[str, Path], WatchedProcess]):
        """`process` makes a project's process, from its name and the path at which it has to answer. `sockets` is a private folder."""
        self.folder = folder
        self.shared = shared
        self._sockets = sockets
        self._process = process
        self._running: dict[str, RunningProject] = {}
        self._problems: dict[str, type[Exception]] = {}

    def look(self) -> None:
        """Begins to serve projects that are new in the folder, and ends those that are gone. A project that cannot be opened is left
        out, and named in the log once."""
        names = self.folder.names()
        for gone in sorted(self._running.keys() - set(names)):
            log.warning("the project %s is gone from %s", gone, self.folder.root)
            project = self._running[gone]
            self._running = {name: each for name, each in self._running.items() if name != gone}
            project.process.stop()
            project.upstream.close()
        for name in names:
            if name not in self._running:
                self._begin(name)

    def _begin(self, name: str) -> None:
        try:
            store = Database(self.folder.existing(name).database)
        except (StoreError, OSError) as error:
            if self._problems.get(name) is not type(error):
                self._problems[name] = type(error)
                log.warning("the project %s is not served: %s", name, error)
            return
        self._problems.pop(name, None)
        socket = self._sockets / f"{name}.sock"
        process = self._process(name, socket)
        process.start()
        # A new dictionary: the front reads this one meanwhile.
        self._running = self._running | {name: RunningProject(name, store, Upstream(socket), process)}

    def entered(self, name: str, person: str) -> tuple[RunningProject, Account] | None:
        """A project, and the account as which a person enters it. None if there is no such project, or they may not enter it.

        It costs one read whether there is such a project or not, so that the time does not tell.
        """
        project = self._running.get(name)
        account = self._account(project.store if project else self.shared, person)
        return (project, account) if project and account else None

    def all_entered(self, person: str) -> list[tuple[str, Account]]:
        """The name of every project that a person may enter, with their account there."""
        entered = [(name, self._account(project.store, person)) for name, project in sorted(self._running.items())]
        return [(name, account) for name, account in entered if account]

    def _account(self, store: Database, person: str) -> Account | None:
        """A store that cannot be read lets nobody in, and its project looks as if it were not there."""
        try:
            account = accounts.in_use(store, person)
        except StoreError as error:
            log.warning("%s", error)
            return None
        return account if account and account.roles else None

    def end_streams(self) -> None:
        """Ends all streams. Call it in the front's event loop."""
        for project in self._running.values():
            project.upstream.end_streams()

    def stop(self) -> None:
        """Ends every process, all at the same time."""
        running = list(self._running.values())
        with ThreadPoolExecutor(max(1, len(running))) as pool:
            list(pool.map(lambda project: project.process.stop(), running))
        for project in running:
            project.store.close()
