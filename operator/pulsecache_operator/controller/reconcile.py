"""The thin hands of the controller: looks, lets `plan` decide, and writes what it says.

Each turn begins from what is there, so a turn that was cut short anywhere is made good by the next one. Writes go
through a guarded Api: without the writer's role they raise NotTheWriter, and nothing is written.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pulsecache_operator.controller.api import CACHE_POLICY, CONFIG_MAP, SECRET, Api, ApiError, Document, NotFound
from pulsecache_operator.controller.asking import PodAsker
from pulsecache_operator.controller.cluster import Cluster
from pulsecache_operator.controller.configmaps import MANAGED_LABELS
from pulsecache_operator.controller.events import Events
from pulsecache_operator.controller.facts import ROLLOUT_ANNOTATION, uid_of
from pulsecache_operator.controller.metrics import Metrics
from pulsecache_operator.controller.plan import Happening, Plan, View, plan
from pulsecache_operator.controller.redis_store import RedisStore, RedisTrouble, report_of
from pulsecache_operator.controller.rollout import Memo, Verdict, WorkloadPlan, written
from pulsecache_operator.controller.status import Report
from pulsecache_operator.inject.names import REDIS_SECRET_KEY, config_map
from pulsecache_operator.placement import Conflict
from pulsecache_operator.settings import Settings

LOG = logging.getLogger(__name__)

ASK_AGAIN_S = 5.0
"""While sidecars that report nowhere are out of sync."""
FORGET_REPORT_S = 60.0
"""A report of a pod that nobody has heard of for this long is of one that is gone, not of one that is new."""


class Reports:
    """What sidecars have reported to Redis, as last read; `None` while Redis is away or there is none."""

    def __init__(self) -> None:
        self.read: Mapping[str, Mapping[str, str]] | None = None
        self._orphans: dict[tuple[str, str], float] = {}

    def of(self, key: str) -> Mapping[str, str] | None:
        return None if self.read is None else self.read.get(key, {})

    def gone(self, key: str, reported: Mapping[str, str], there: set[str], now: float) -> list[str]:
        """The uids of pods that reported once and have not been there for a while."""
        missing = [uid for uid in reported if uid not in there]
        for place in [p for p in self._orphans if p[0] == key and p[1] not in missing]:
            del self._orphans[place]
        since = {uid: self._orphans.setdefault((key, uid), now) for uid in missing}
        return [uid for uid in missing if now - since[uid] >= FORGET_REPORT_S]


class Reconciler:
    def __init__(
        self,
        api: Api,
        cluster: Cluster,
        settings: Settings,
        metrics: Metrics,
        *,
        redis: RedisStore | None,
        reports: Reports,
        asker: PodAsker,
        injection_problem: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._redis = redis
        self._reports = reports
        self._asker = asker
        self._injection_problem = injection_problem
        self._clock = clock
        self._wall = wall
        self._events = Events(api, clock=clock)
        self._memos: dict[str, Memo] = {}
        self._conflicts: dict[str, Mapping[str, Conflict]] = {}
        self._statuses: dict[str, Document] = {}
        """The newest status written to each policy, by uid: the watch may be behind."""

    def forget(self) -> None:
        """Somebody else may have written meanwhile: what this process has written does not count any more."""
        self._memos.clear()
        self._statuses.clear()

    async def policy(self, key: str) -> float | None:
        """One turn of a policy; returns when it wants another. Raises ApiError, NotTheWriter.

        To be called when all has been listed once.
        """
        document = self._cluster.policies.get(key)
        existing = await self._config_map(key)
        if document is None:
            if existing is None:
                return None
            # Burying is not taken back easily: the API server itself is asked once more.
            document = await self._certain(key)
        view, asked = await self._view(key, document, existing)
        made = plan(view)
        await self._carry_out(view, made)
        behind = asked and made.counts.in_sync < made.counts.injected
        # Where nobody answers (a NetworkPolicy?) it costs a time-out each time.
        ask_s = None if not behind else ASK_AGAIN_S if view.reports else 4 * ASK_AGAIN_S
        return min((wish for wish in (made.again_s, ask_s) if wish is not None), default=None)

    async def _config_map(self, key: str) -> Document | None:
        namespace, _, name = key.partition("/")
        try:
            return await self._api.get(CONFIG_MAP, config_map(name), namespace)
        except NotFound:
            return None

    async def _certain(self, key: str) -> Document | None:
        namespace, _, name = key.partition("/")
        try:
            return await self._api.get(CACHE_POLICY, name, namespace)
        except NotFound as error:
            if f'"{name}" not found' not in str(error):
                # Without its CRD the API server says of every policy that it is not there.
                raise ApiError(
                    404, f"the API server does not know CachePolicies (is the CRD gone?): {error}"
                ) from error
            return None

    async def _view(self, key: str, document: Document | None, existing: Document | None) -> tuple[View, bool]:
        namespace = key.partition("/")[0]
        pods = self._cluster.pods_of(namespace)
        reports, asked = (None, False) if document is None else await self._reported(key, pods)
        uid = str((document or {}).get("metadata", {}).get("uid"))
        return View(
            key=key,
            document=document,
            config_map=existing,
            around=self._cluster.around(namespace),
            pods=pods,
            workloads=self._cluster.workloads_of(namespace),
            reports=reports,
            injection_problem=self._injection_problem(),
            memos=self._memos,
            status=self._statuses.get(uid) or (document or {}).get("status") or {},
            now=self._clock(),
            wall=self._wall(),
        ), asked

    async def _reported(self, key: str, pods: tuple[Document, ...]) -> tuple[dict[str, Report] | None, bool]:
        """What is known of the sidecars, and whether any had to be asked itself."""
        reported = self._reports.of(key)
        found = {uid: report for uid, text in (reported or {}).items() if (report := report_of(text)) is not None}
        injected = [pod for pod in pods if uid_of(pod) not in found and _names(pod, key)]
        answers = await self._asker.ask(injected, key)
        if reported is None and not answers:
            return None, bool(injected)
        return answers | found, bool(injected)

    # --- writing -------------------------------------------------------------------------------------------------

    async def _carry_out(self, view: View, made: Plan) -> None:
        carried = made.carried
        # First what the pods read, then the pods: one that starts now finds its policy.
        if carried.apply is not None:
            await self._api.apply(CONFIG_MAP, carried.apply)
        await self._copy(view.key, made)
        if carried.delete is not None:
            namespace, _, name = view.key.partition("/")
            await self._api.delete(CONFIG_MAP, config_map(name), namespace, uid=carried.delete)
        self._memos |= made.memos
        if view.document is None:
            self._metrics.forget(view.key)
            return
        counts = made.counts
        self._metrics.pods(
            view.key,
            selected=counts.selected,
            injected=counts.injected,
            in_sync=counts.in_sync,
            uninjected=len(made.survey.lacking) - made.survey.outdated,
        )
        if made.status is not None:
            await self._write_status(view.document, made.status)
        for happening in made.happenings:
            await self._events.post(view.document, happening)
        for workload in made.workloads:
            if workload.verdict is Verdict.ROLL:
                await self._roll(view.document, workload)

    async def _copy(self, key: str, made: Plan) -> None:
        """The hint that makes an edit a matter of seconds: without it the files suffice."""
        carried = made.carried
        if self._redis is None:
            return
        try:
            if carried.delete is not None:
                await self._redis.forget(key)
            elif carried.content is not None and carried.text is not None:
                await self._redis.publish(key, carried.content, carried.text)
            there = {uid_of(pod) for pod in self._cluster.pods_of(key.partition("/")[0])}
            gone = self._reports.gone(key, self._reports.of(key) or {}, there, self._clock())
            if gone:
                await self._redis.drop_reports(key, gone)
        except RedisTrouble as error:
            LOG.warning("the copy of policy %s in Redis is not up to date: %s", key, error)

    async def _write_status(self, document: Document, status: Document) -> None:
        metadata = document["metadata"]
        # The uid makes sure that it is not another policy of the same name by now.
        who = {name: metadata[name] for name in ("name", "namespace", "uid")}
        try:
            applied = await self._api.apply(CACHE_POLICY, {"metadata": who, "status": status}, subresource="status")
        except NotFound:
            return  # deleted meanwhile: the next turn buries it
        self._statuses[metadata["uid"]] = applied.get("status") or status

    async def _roll(self, document: Document, found: WorkloadPlan) -> None:
        workload, mark = found.workload, found.mark
        assert workload is not None
        assert mark is not None
        patch = {
            "metadata": {"uid": workload.uid},
            "spec": {"template": {"metadata": {"annotations": {ROLLOUT_ANNOTATION: mark}}}},
        }
        try:
            await self._api.patch(workload.kind, patch, workload.name, workload.namespace)
        except NotFound:
            return  # deleted meanwhile
        except ApiError as error:
            message = f"{workload.title} could not be rolled: {error}"
            await self._events.post(document, Happening(type="Warning", reason="RolloutFailed", message=message))
            raise
        self._memos[workload.uid] = written(self._memos[workload.uid], mark)
        why = "pods of it were made without the sidecar" if found.heals else "its pods lack the sidecar of the policy"
        message = f"Rolling {workload.title}: {why}."
        LOG.info("policy %s/%s: %s", workload.namespace, document["metadata"]["name"], message)
        await self._events.post(document, Happening(type="Normal", reason="RolloutStarted", message=message))

    def tidy(self) -> None:
        """Forgets what is remembered of objects that are gone."""
        workloads = {str(w["metadata"]["uid"]) for objects in self._cluster.workloads.values() for w in objects}
        self._memos = {uid: memo for uid, memo in self._memos.items() if uid in workloads}
        policies = self._cluster.policies
        uids = {str(found["metadata"]["uid"]) for key in policies if (found := policies.get(key)) is not None}
        self._statuses = {uid: status for uid, status in self._statuses.items() if uid in uids}

    # --- a namespace ---------------------------------------------------------------------------------------------

    async def namespace(self, namespace: str) -> set[str]:
        """One turn of a namespace; returns the policies (`namespace/name`) that win or lose a conflict since the last
        one. Raises ApiError, NotTheWriter. To be called when all has been listed once."""
        before, after = self._conflicts.get(namespace, {}), self._cluster.around(namespace).conflicts
        self._conflicts[namespace] = after
        await self._secret(namespace)
        return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}

    async def _secret(self, namespace: str) -> None:
        """The Redis URL for the sidecars of a namespace: there as long as one of its policies wants Redis."""
        url, name = self._settings.sidecar_redis_url, self._settings.redis_secret
        wanted = url is not None and any(policy.redis for policy in self._cluster.policies.valid_of(namespace))
        try:
            secret: Document | None = await self._api.get(SECRET, name, namespace)
        except NotFound:
            secret = None
        ours = secret is not None and MANAGED_LABELS.items() <= (secret["metadata"].get("labels") or {}).items()
        if secret is not None and not ours:
            return  # somebody brings his own Redis for this namespace
        if not wanted or url is None:
            if secret is not None and not self._any_document_of(namespace):
                await self._api.delete(SECRET, name, namespace, uid=secret["metadata"]["uid"])
            return
        data = {REDIS_SECRET_KEY: base64.b64encode(url.encode()).decode()}
        if secret is None or secret.get("data") != data:
            metadata = {"name": name, "namespace": namespace, "labels": MANAGED_LABELS}
            await self._api.apply(SECRET, {"metadata": metadata, "data": data})

    def _any_document_of(self, namespace: str) -> bool:
        """Whether a policy that cannot be read now may want Redis still."""
        policies = self._cluster.policies
        return any(policies.valid(key) is None for key in policies.keys_of(namespace))


def _names(pod: Document, key: str) -> bool:
    """Whether the pod says that it carries the policy; what it says is read thoroughly elsewhere."""
    return any(f'"{key}"' in text for text in pod["metadata"]["annotations"].values())
