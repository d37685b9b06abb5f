# Every library that Reeve uses, as imported targets named dep::NAME.
# The Debian packages that bring them are listed once, in ./run.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)

function(reeve_dep name header library)
	find_path(DEP_${name}_INCLUDE ${header} REQUIRED)
	find_library(DEP_${name}_LIBRARY ${library} REQUIRED)
	if(NOT TARGET dep::${name})
		add_library(dep::${name} UNKNOWN IMPORTED)
		set_target_properties(dep::${name} PROPERTIES
			IMPORTED_LOCATION ${DEP_${name}_LIBRARY}
			INTERFACE_INCLUDE_DIRECTORIES ${DEP_${name}_INCLUDE})
	endif()
endfunction()

reeve_dep(ev ev.h ev)                          # libev ships no .pc file
reeve_dep(nng nng/nng.h nng)
reeve_dep(msgpack msgpack.h msgpackc)
reeve_dep(raft raft.h raft)
reeve_dep(xxhash xxhash.h xxhash)
reeve_dep(cmocka cmocka.h cmocka)
reeve_dep(smartcols libsmartcols/libsmartcols.h smartcols)
reeve_dep(edit histedit.h edit)
reeve_dep(inih ini.h inih)
reeve_dep(mnl libmnl/libmnl.h mnl)
reeve_dep(xenctrl xenctrl.h xenctrl)
reeve_dep(xenguest xenguest.h xenguest)
reeve_dep(xenstore xenstore.h xenstore)   # tests alone
reeve_dep(xenlight libxl.h xenlight)
reeve_dep(xenstore xenstore.h xenstore)
reeve_dep(xentoollog xentoollog.h xentoollog)
set(ReeveDeps_FOUND TRUE)
