# reeve_library(NAME [USES target...]): the static library of one folder, named
# reeve_NAME, from every .c file in it. Headers are included as "folder/file.h".
function(reeve_library name)
	cmake_parse_arguments(ARG "" "" "USES;EXCLUDE" ${ARGN})
	file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
	foreach(excluded ${ARG_EXCLUDE})
		list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/${excluded})
	endforeach()
	add_library(reeve_${name} STATIC ${sources})
	target_include_directories(reeve_${name} PUBLIC ${CMAKE_SOURCE_DIR})
	target_link_libraries(reeve_${name} PUBLIC ${ARG_USES})
endfunction()

# reeve_tests(LABEL USES target... [TIMEOUT seconds]): one cmocka program and one
# ctest entry for each *_test.c in this folder. The label is the kind of test.
function(reeve_tests label)
	cmake_parse_arguments(ARG "" "TIMEOUT" "USES" ${ARGN})
	if(NOT ARG_TIMEOUT)
		set(ARG_TIMEOUT 120)
	endif()
	get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
	file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.c)
	foreach(source ${sources})
		get_filename_component(base ${source} NAME_WE)
		set(target ${label}_${folder}_${base})
		add_executable(${target} ${source})
		target_link_libraries(${target} PRIVATE ${ARG_USES} dep::cmocka)
		add_test(NAME ${label}/${folder}/${base} COMMAND ${target}
			WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
		set_tests_properties(${label}/${folder}/${base} PROPERTIES
			TIMEOUT ${ARG_TIMEOUT} LABELS ${label})
	endforeach()
endfunction()
