# libopenvswitch from Debian's openvswitch-source: the tarball under /usr/src, configured and made into a static library.
#
# Making it takes about a minute, and no build type or sanitizer of ours changes it (it is third-party code, built with its
# own flags). So it is made once, under build/_openvswitch of the source tree, and every build directory uses that copy: the
# first build that needs it makes it, under a lock; a new version of the package gets a new directory.
#
# Defines the interface library `openvswitch`: link it to include <openvswitch/...>.
include(ExternalProject)

set(VSWITCH_OPENVSWITCH_TARBALL "/usr/src/openvswitch/openvswitch.tar.gz" CACHE FILEPATH
  "Source of libopenvswitch (Debian package openvswitch-source)")
if(NOT EXISTS "${VSWITCH_OPENVSWITCH_TARBALL}")
  message(FATAL_ERROR "${VSWITCH_OPENVSWITCH_TARBALL} is missing: install the package openvswitch-source")
endif()

# The size and time of the tarball stand for the package version: no need of dpkg, and a rebuilt package counts as new.
file(SIZE "${VSWITCH_OPENVSWITCH_TARBALL}" tarball_size)
file(TIMESTAMP "${VSWITCH_OPENVSWITCH_TARBALL}" tarball_time "%Y%m%d%H%M%S" UTC)
set(openvswitch_dir "${CMAKE_SOURCE_DIR}/build/_openvswitch/${tarball_time}-${tarball_size}")
set(openvswitch_libraries
  "${openvswitch_dir}/lib/.libs/libopenvswitch.a" "${openvswitch_dir}/lib/.libs/libopenvswitchavx512.a")

ExternalProject_Add(openvswitch_build
  PREFIX "${CMAKE_BINARY_DIR}/_openvswitch"
  DOWNLOAD_COMMAND "" CONFIGURE_COMMAND "" INSTALL_COMMAND ""
  BUILD_COMMAND "${CMAKE_SOURCE_DIR}/cmake/build-openvswitch" "${VSWITCH_OPENVSWITCH_TARBALL}" "${openvswitch_dir}"
  BUILD_BYPRODUCTS ${openvswitch_libraries}
  LOG_BUILD ON LOG_OUTPUT_ON_FAILURE ON)

find_package(OpenSSL REQUIRED)
add_library(openvswitch INTERFACE)
add_dependencies(openvswitch openvswitch_build)
target_include_directories(openvswitch SYSTEM INTERFACE "${openvswitch_dir}/include")
target_link_libraries(openvswitch INTERFACE ${openvswitch_libraries} ${OPENSSL_LIBRARIES} atomic m Threads::Threads)
