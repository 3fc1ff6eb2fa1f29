# Two images of one program:
#
#   docker build -t tako .                            the server, with a shell for the steps that it runs itself
#   docker build -t tako:minimal --target minimal .   the server and nothing else: steps run on agents only
#
# Both run as user 10065, need nothing writable but the volume /data, and end on SIGTERM.
# docs/install.md says how to run them.
ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${GO_IMAGE} AS build
ARG VERSION=2026.4.0-dev
ARG COMMIT=unknown
ARG COMMIT_DATE=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build VERSION="${VERSION}" COMMIT="${COMMIT}" COMMIT_DATE="${COMMIT_DATE}" && mkdir /volume

FROM scratch AS minimal
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/tako /tako
COPY --from=build --chown=10065:10065 /volume /data
ENV TAKO_LISTEN=0.0.0.0:8065 TAKO_AGENT_LISTEN=0.0.0.0:10943 TAKO_BUILTIN_WORKER=false
ENV TAKO_DATA=/data/data TAKO_BACKUPS=/data/backups TMPDIR=/data/tmp HOME=/data
EXPOSE 8065 10943
VOLUME /data
USER 10065:10065
STOPSIGNAL SIGTERM
ENTRYPOINT ["/tako"]
CMD ["container"]

FROM ${BASE_IMAGE} AS server
RUN apt-get update && apt-get install -y --no-install-recommends bash ca-certificates curl jq openssl && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10065 --home-dir /data --no-create-home --shell /usr/sbin/nologin tako
COPY --from=build /src/bin/tako /tako
COPY --from=build --chown=10065:10065 /volume /data
ENV TAKO_LISTEN=0.0.0.0:8065 TAKO_AGENT_LISTEN=0.0.0.0:10943
ENV TAKO_DATA=/data/data TAKO_BACKUPS=/data/backups TMPDIR=/data/tmp HOME=/data
EXPOSE 8065 10943
VOLUME /data
USER 10065:10065
STOPSIGNAL SIGTERM
ENTRYPOINT ["/tako"]
CMD ["container"]
