# Compiler settings and the switches a preset may turn.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

option(VSWITCH_TESTS "Build the unit, property and end-to-end tests" ON)
option(VSWITCH_BENCH "Build the benchmarks" OFF)
option(VSWITCH_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
set(VSWITCH_DPDK AUTO CACHE STRING "Ports of type dpdk: ON, OFF, or AUTO (if libdpdk-dev is installed)")
set(VSWITCH_AFXDP AUTO CACHE STRING "Ports of type afxdp: ON, OFF, or AUTO (if libxdp-dev and libbpf-dev are installed)")
set(VSWITCH_KERNEL_PATH AUTO CACHE STRING "The kernel path (docs/kernel-path.md): ON, OFF, or AUTO (if clang and libbpf-dev are installed)")
set(VSWITCH_SANITIZE "" CACHE STRING "Value for -fsanitize=, e.g. address,undefined or thread")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

# Everything of ours is compiled with these; the third-party code that we build (libopenvswitch) is not.
add_library(vswitch_flags INTERFACE)
target_compile_options(vswitch_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wcast-qual -Wformat=2 -Wimplicit-fallthrough
  -Werror -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees overlaps in std::string concatenation that are not there (GCC bug 105651).
  target_compile_options(vswitch_flags INTERFACE -Wno-restrict)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64")
    # GCC copies and clears structs of the size of a key (584 bytes) with `rep movsq` and `rep stosq`, which take longer to begin than the
    # C library takes for all of it.
    set(short_by_hand "unrolled_loop:64:noalign,libcall:-1:noalign")
    target_compile_options(vswitch_flags INTERFACE -mmemcpy-strategy=${short_by_hand} -mmemset-strategy=${short_by_hand})
  endif()
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(vswitch_flags INTERFACE -Wthread-safety -Wno-gnu-zero-variadic-macro-arguments)
endif()
if(VSWITCH_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # In code that it instruments for threads GCC 12 sees overflows in std::vector that are not there. The other builds have the
  # same warnings as errors.
  target_compile_options(vswitch_flags INTERFACE -Wno-error)
endif()
if(VSWITCH_SANITIZE)
  target_compile_options(vswitch_flags INTERFACE -fsanitize=${VSWITCH_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(vswitch_flags INTERFACE -fsanitize=${VSWITCH_SANITIZE})
endif()
target_include_directories(vswitch_flags INTERFACE "${CMAKE_SOURCE_DIR}")
