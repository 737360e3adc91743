# The binary in a minimal image: docker build -t highwater .
# archive_command runs inside the database's own container, so most will copy /usr/local/bin/highwater out of this image.
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package highwater

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 999 postgres \
    && useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql postgres
COPY --from=build /source/target/release/highwater /usr/local/bin/highwater
USER postgres
ENTRYPOINT ["highwater"]
