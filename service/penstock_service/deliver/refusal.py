"""Errors of calls that are no session: a status, with the error's code in the trailer `penstock-code`."""

from typing import Any, Final, NoReturn, TypeAlias

import grpc

from penstock_proto.v1 import codes
from penstock_service.core.errors import ServiceError

Context: TypeAlias = Any  # grpc.aio.ServicerContext: grpc ships no types

_STATUS: Final = {
    codes.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    codes.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    codes.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    codes.JOURNAL_CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    codes.DATA_ERROR: grpc.StatusCode.DATA_LOSS,
    codes.SOURCE_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    codes.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    codes.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


async def refuse(problem: ServiceError, context: Context) -> NoReturn:
    """End the call with `problem`."""
    context.set_trailing_metadata((("penstock-code", problem.code),))
    await context.abort(_STATUS.get(problem.code, grpc.StatusCode.INTERNAL), str(problem))
    raise problem  # never reached: abort raises
