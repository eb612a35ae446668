"""Bringing the reviewed half of a project into the hub: environments, models, endpoints, the policy."""

from __future__ import annotations

from importlib import resources

from lockgate.app.control import Control
from lockgate.core.messages import Command
from lockgate.core.names import EndpointName, ModelName
from lockgate.delivery.messages import ConfigureEndpoint, DeclareEndpoint, DeclareEnvironment
from lockgate.governance.messages import AdoptPolicy
from lockgate.governance.policies.file import parse_policy
from lockgate.governance.policies.policy import AnyPolicy
from lockgate.hub.kernel import Hub, require
from lockgate.hub.messages import PolicyAnswer, PolicyInForce
from lockgate.registry.messages import DeclareModel


def default_policy() -> AnyPolicy:
    """The policy pack that ships with Lockgate."""
    text = resources.files("lockgate.app").joinpath("policies/default.toml").read_text()
    return parse_policy(text, where="policies/default.toml")


def default_cases() -> str:
    """What the pack promises, as cases."""
    return resources.files("lockgate.app").joinpath("policies/default.cases.toml").read_text()


def declare(control: Control, hub: Hub) -> None:
    """Make the hub know what lockgate.toml says; what it already knows is no news."""
    for command in declarations(control, hub):
        require(hub.execute(command))


def declarations(control: Control, hub: Hub) -> list[Command]:
    """The commands by which a hub learns what lockgate.toml says, with the default policy where none is in force."""
    config = control.config
    namespace = config.project.namespace
    commands: list[Command] = []
    known: PolicyAnswer = hub.ask(PolicyInForce(namespace=namespace))
    if known.policy is None:
        commands.append(AdoptPolicy(id=control.ids.new(), namespace=namespace, policy=default_policy()))
    commands += [
        DeclareEnvironment(
            id=control.ids.new(),
            environment=name,
            order=table.order,
            sensitivity=table.sensitivity,
            target=table.target,
            trust=table.trust,
        )
        for name, table in config.environments.items()
    ]
    commands += [
        DeclareModel(
            id=control.ids.new(),
            model=str(ModelName(namespace, name)),
            tier=model.tier,
            owner=model.owner,
            purpose=model.purpose,
            kpi=model.kpi,
        )
        for name, model in config.models.items()
    ]
    for name, endpoint in config.endpoints.items():
        environment, _, bare = name.partition("/")
        full = str(EndpointName(environment, ModelName(namespace, bare)))
        commands += [
            DeclareEndpoint(
                id=control.ids.new(),
                endpoint=full,
                fallback=endpoint.fallback,
                consumers=endpoint.consumers,
                dashboards=endpoint.dashboards,
            ),
            ConfigureEndpoint(id=control.ids.new(), endpoint=full, settings=endpoint.settings),
        ]
    return commands
