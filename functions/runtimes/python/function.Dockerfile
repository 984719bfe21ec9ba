# A function in an image: its code, and the packages that its requirements.txt names. The context is the function's folder:
#
#   buildah bud -f functions/runtimes/python/function.Dockerfile --build-arg BASE=invoker-python -t my-function my-function/
#
# With a folder wheels/ in it nothing is fetched from anywhere; see docs/images.md for how to fill it.
ARG BASE=invoker-python

FROM ${BASE} AS built
USER 0:0
COPY . /code/
RUN ["python3", "-I", "/opt/invoker/build_function.py", "/code"]

FROM ${BASE}
COPY --from=built /opt/invoker/packages /opt/invoker/packages
COPY --from=built /code /code
