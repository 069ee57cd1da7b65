// NCCL's functions as they are linked: each finds the real one when it is first
// called, so that a program starts on machines that lack the library.

#include "runtime/comm/nccl/nccl_library.h"

#include <dlfcn.h>
#include <nccl.h>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr const char* kName = "libnccl.so.2";

// Null where it is not there.
void* Library() {
  static void* const library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  return library;
}

// The function of this name and type.
template <typename Function>
Function* Found(const char* name) {
  CHECK_OK(FindNccl());
  void* const function = dlsym(Library(), name);
  CHECK(function != nullptr) << "NCCL has no " << name;
  return reinterpret_cast<Function*>(function);
}

}  // namespace

absl::Status FindNccl() {
  if (Library() != nullptr) return absl::OkStatus();
  return NotFound("{} cannot be loaded", kName);
}

}  // namespace trireme

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  static auto* const call =
      trireme::Found<decltype(ncclGetVersion)>("ncclGetVersion");
  return call(version);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static auto* const call =
      trireme::Found<decltype(ncclGetUniqueId)>("ncclGetUniqueId");
  return call(id);
}

ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int ranks,
                              ncclUniqueId id, int rank) {
  static auto* const call =
      trireme::Found<decltype(ncclCommInitRank)>("ncclCommInitRank");
  return call(communicator, ranks, id, rank);
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  static auto* const call =
      trireme::Found<decltype(ncclCommDestroy)>("ncclCommDestroy");
  return call(communicator);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator,
                                   ncclResult_t* error) {
  static auto* const call =
      trireme::Found<decltype(ncclCommGetAsyncError)>("ncclCommGetAsyncError");
  return call(communicator, error);
}

ncclResult_t ncclGroupStart() {
  static auto* const call =
      trireme::Found<decltype(ncclGroupStart)>("ncclGroupStart");
  return call();
}

ncclResult_t ncclGroupEnd() {
  static auto* const call =
      trireme::Found<decltype(ncclGroupEnd)>("ncclGroupEnd");
  return call();
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type,
                      int peer, ncclComm_t communicator, cudaStream_t stream) {
  static auto* const call = trireme::Found<decltype(ncclSend)>("ncclSend");
  return call(data, count, type, peer, communicator, stream);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  static auto* const call = trireme::Found<decltype(ncclRecv)>("ncclRecv");
  return call(data, count, type, peer, communicator, stream);
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count,
                           ncclDataType_t type, ncclComm_t communicator,
                           cudaStream_t stream) {
  static auto* const call =
      trireme::Found<decltype(ncclAllGather)>("ncclAllGather");
  return call(from, to, count, type, communicator, stream);
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count,
                           ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t communicator, cudaStream_t stream) {
  static auto* const call =
      trireme::Found<decltype(ncclAllReduce)>("ncclAllReduce");
  return call(from, to, count, type, operation, communicator, stream);
}

ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count,
                               ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t communicator, cudaStream_t stream) {
  static auto* const call =
      trireme::Found<decltype(ncclReduceScatter)>("ncclReduceScatter");
  return call(from, to, count, type, operation, communicator, stream);
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count,
                           ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
  static auto* const call =
      trireme::Found<decltype(ncclBroadcast)>("ncclBroadcast");
  return call(from, to, count, type, root, communicator, stream);
}

const char* ncclGetErrorString(ncclResult_t error) {
  static auto* const call =
      trireme::Found<decltype(ncclGetErrorString)>("ncclGetErrorString");
  return call(error);
}

}  // extern "C"
