// Options of the sanitizers, built into each program that is compiled with
// one, so that a program run by hand behaves as it does under Bazel.

extern "C" {

// OpenMPI keeps much of what it allocates until the process ends, fontconfig
// (that charts choose fonts with) what it read, gRPC's c-ares a name that it
// looked up. The caller of glibc's asprintf cannot be named, and is OpenMPI:
// our code prints with fmt.
const char* __lsan_default_suppressions() {
  return "leak:libmpi\n"
         "leak:libopen-\n"
         "leak:libpmix\n"
         "leak:mca_\n"
         "leak:libhwloc\n"
         "leak:libevent\n"
         "leak:libOpenCL\n"
         "leak:libcares\n"
         "leak:libfontconfig\n"
         "leak:__vasprintf_internal\n";
}

// Tests preload a library of faults, which comes before the sanitizer's own.
const char* __asan_default_options() { return "verify_asan_link_order=0"; }

// OpenMPI unloads its components in MPI_Finalize, after which a leak report
// could not name them, nor a suppression match them.
int dlclose(void* /*handle*/) { return 0; }

// OpenMPI and libgomp are not instrumented: what they do between their own
// threads looks unsynchronized, and OpenMPI takes its locks in both orders
// where only one thread can.
const char* __tsan_default_suppressions() {
  return "race:libmpi\n"
         "race:libopen-\n"
         "race:libpmix\n"
         "race:libevent\n"
         "race:mca_\n"
         "race:libgomp\n"
         "deadlock:libmpi\n"
         "deadlock:libopen-\n"
         "deadlock:libpmix\n"
         "deadlock:mca_\n"
         "mutex:libopen-\n"
         "mutex:libpmix\n"
         "mutex:mca_\n"
         "signal:libopen-\n"
         "thread:libopen-\n"
         "thread:libpmix\n";
}

const char* __ubsan_default_options() { return "print_stacktrace=1"; }

}  // extern "C"
