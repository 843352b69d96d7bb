"""The switch for faults, for tests in another process: not part of any Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from tests.fake_hub.errors import HubError
from tests.fake_hub.faults import Fault
from tests.fake_hub.routing import Call, route

if TYPE_CHECKING:
    from tests.fake_hub.app import HubApp


@route("POST DELETE", "/_control/faults", "control")
async def control_faults(hub: HubApp, call: Call) -> Response:
    if call.request.method == "DELETE":
        hub.faults.clear()
    else:
        try:
            hub.faults.add(Fault(**await call.json()))
        except (TypeError, ValueError) as error:
            raise HubError(400, str(error)) from None
    return Response()


@route("GET", "/_control/faults", "control")
async def control_struck(hub: HubApp, call: Call) -> Response:
    return JSONResponse(hub.faults.struck)


@route("GET", "/_control/requests", "control")
async def control_requests(hub: HubApp, call: Call) -> Response:
    return JSONResponse([record for record in hub.requests if record["endpoint"] != "control"])
