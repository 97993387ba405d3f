# `cmake --install build`: programs, manual pages, shell completion, the systemd unit.
include(GNUInstallDirs)
install(TARGETS vswitchd vsctl ofctl dpctl RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
file(GLOB manual_pages "${CMAKE_SOURCE_DIR}/docs/man/*.8")
install(FILES ${manual_pages} DESTINATION "${CMAKE_INSTALL_MANDIR}/man8")
foreach(program vsctl ofctl dpctl)
  # Completion is made from the program's own table of verbs.
  set(script "${CMAKE_BINARY_DIR}/completion/${program}")
  add_custom_command(OUTPUT "${script}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/completion"
    COMMAND ${program} completion bash > "${script}"
    DEPENDS ${program} VERBATIM)
  list(APPEND completion_scripts "${script}")
endforeach()
add_custom_target(completion ALL DEPENDS ${completion_scripts})
install(FILES ${completion_scripts} DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
# The unit starts the program where it is installed.
set(unit "${CMAKE_SOURCE_DIR}/scripts/vswitch.service")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${unit}")
file(READ "${unit}" unit_text)
string(REPLACE "/usr/sbin/vswitchd" "${CMAKE_INSTALL_FULL_BINDIR}/vswitchd" unit_text "${unit_text}")
file(WRITE "${CMAKE_BINARY_DIR}/vswitch.service" "${unit_text}")
install(FILES "${CMAKE_BINARY_DIR}/vswitch.service" DESTINATION /etc/systemd/system)
