# The service and its mtr-packet, to run as an ordinary user with the one capability NET_RAW:
#
#   docker build -t tracerouted .
#   docker run --rm -p 8080:8080 --read-only --tmpfs /tmp --cap-drop ALL --cap-add NET_RAW tracerouted
#
# Not with no-new-privileges: Docker sets no ambient capabilities, so mtr-packet gets NET_RAW from its file capability.
ARG BASE=debian:bookworm-slim

# The virtual environment, without pip, made from the wheel.
FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /build \
    && python3 -m venv --without-pip /opt/tracerouted
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/tracerouted/bin/python install --no-cache-dir /wheels/*.whl

FROM ${BASE}
# libcap2-bin (setcap) is only needed here. No file may give anybody another identity; setcap comes last because
# changing a file's owner or content drops its capabilities.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 mtr-tiny libcap2-bin \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && setcap cap_net_raw+ep /usr/bin/mtr-packet \
    && apt-get purge -y --auto-remove libcap2-bin \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/debconf/*-old
COPY --from=build /opt/tracerouted /opt/tracerouted
ENV PATH=/opt/tracerouted/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    TRACEROUTED_LISTEN=0.0.0.0:8080,[::]:8080
LABEL org.opencontainers.image.title="tracerouted" \
      org.opencontainers.image.description="A traceroute daemon: traceroutes over HTTP, streamed hop by hop" \
      org.opencontainers.image.licenses="MIT"
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["tracerouted", "healthcheck"]
ENTRYPOINT ["tracerouted"]
CMD ["serve"]
