"""CORS of HTTP APIs from templates.

AWS: CloudFormation's CorsConfiguration (AllowOrigins, ...) answers preflight requests.
ministack: stores it as written, while the API reads it as its own interface names it (allowOrigins, ...), so that
every preflight request is refused.
Remedy: rename the keys after an API's creation and update.
"""

from ministack.services import apigateway
from ministack.services.cloudformation import provisioners

API = "AWS::ApiGatewayV2::Api"


def apply() -> None:
    handlers = provisioners._RESOURCE_HANDLERS[API]
    for operation in ("create", "update"):
        handlers[operation] = renaming(handlers[operation])


def renaming(provision):
    def provision_and_rename(*arguments, **named):
        identifier, attributes = provision(*arguments, **named)
        api = apigateway._apis[identifier]
        if cors := api.get("corsConfiguration"):
            api["corsConfiguration"] = {name[0].lower() + name[1:]: value for name, value in cors.items()}
        return identifier, attributes

    return provision_and_rename
