"""What an operator can set about who is let in: `JAMJET_BOOTSTRAP_TOKEN`, `JAMJET_JWT_…`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jamjet_kernel import PluginError, Role

Names = Annotated[tuple[str, ...], NoDecode]
RoleNames = Annotated[dict[str, Role], NoDecode]


class AuthSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="JAMJET_", extra="ignore", frozen=True, env_ignore_empty=True)

    bootstrap_token: SecretStr | None = Field(
        None, description="Plain text of an operator's token that is made at the start, where it is not there yet."
    )
    jwt_issuer: str | None = Field(None, description="The identity provider whose tokens are taken: their `iss`.")
    jwt_audience: Names = Field((), description="Who its tokens must be for: any of these in `aud`.")
    jwt_jwks_url: str | None = Field(
        None, description="Where its keys are: else what its /.well-known/openid-configuration says."
    )
    jwt_role_claim: str = Field(
        "role", description="The claim with the role, or a list of them; dots lead into it: realm_access.roles."
    )
    jwt_roles: RoleNames = Field(
        {}, description="What the claim's values mean, as admins=operator,staff=viewer: else they are role names."
    )
    jwt_tenant_claim: str | None = Field(
        None,
        description="The claim with the tenant, which every token must have then; else all are of `default`.",
    )

    @classmethod
    def read(cls) -> Self:
        try:
            return cls()
        except ValidationError as error:
            problems = "; ".join(_told(wrong["loc"], wrong["msg"]) for wrong in error.errors())
            raise PluginError(f"a setting of the plugin auth is not valid: {problems}") from None

    @field_validator("jwt_audience", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("jwt_roles", mode="before")
    @classmethod
    def _split_pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.rpartition("=") for pair in value.split(",") if pair.strip()]
        return {name.strip(): role.strip() for name, _, role in pairs}

    @field_validator("bootstrap_token")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not all("!" <= character <= "~" for character in value.get_secret_value()):
            raise ValueError("must be visible ASCII characters: it is sent in a header")
        return value

    @model_validator(mode="after")
    def _says_for_whom(self) -> Self:
        # Without an audience, a token that the provider made for any other application would be good here too.
        if self.jwt_issuer is not None and not self.jwt_audience:
            raise ValueError("JAMJET_JWT_ISSUER needs JAMJET_JWT_AUDIENCE: who the tokens must be for")
        return self


def _told(place: tuple[int | str, ...], message: str) -> str:
    ours = message.removeprefix("Value error, ")
    return f"JAMJET_{'.'.join(map(str, place)).upper()}: {ours}" if place else ours
