# What `cmake --install` puts on a host beside the programs. The configuration is every
# setting with its default, commented out; one that is there already is left alone.
include(GNUInstallDirs)
set(CMAKE_INSTALL_FULL_DOCDIR ${CMAKE_INSTALL_PREFIX}/share/doc/reeve)
configure_file(${CMAKE_CURRENT_LIST_DIR}/reeved.service.in
	${CMAKE_CURRENT_BINARY_DIR}/reeved.service @ONLY)
install(TARGETS reeved RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/reeved.service DESTINATION lib/systemd/system)
install(FILES ${CMAKE_SOURCE_DIR}/README.md DESTINATION share/doc/reeve)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/ DESTINATION share/doc/reeve/docs
	FILES_MATCHING PATTERN "*.md")

add_custom_command(OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/reeved.conf
	COMMAND $<TARGET_FILE:reeved> --help-config | sed "s/^\\([a-z]\\)/#\\1/"
		> ${CMAKE_CURRENT_BINARY_DIR}/reeved.conf
	DEPENDS reeved VERBATIM)
add_custom_target(reeved_conf ALL DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/reeved.conf)
install(CODE "
	set(at \"\$ENV{DESTDIR}${CMAKE_INSTALL_FULL_SYSCONFDIR}/reeve/reeved.conf\")
	if(NOT EXISTS \"\${at}\")
		file(INSTALL DESTINATION \"${CMAKE_INSTALL_FULL_SYSCONFDIR}/reeve\"
			TYPE FILE FILES \"${CMAKE_CURRENT_BINARY_DIR}/reeved.conf\")
	endif()")
