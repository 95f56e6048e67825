"""The scripted server of `inferry_client.testing`, under the names that the tests know."""

from inferry_client.testing import METHODS, Refusal, Script, ScriptedServer
from inferry_client.testing import scripted_server as serving

__all__ = ["METHODS", "Refusal", "Script", "ScriptedServer", "serving"]
