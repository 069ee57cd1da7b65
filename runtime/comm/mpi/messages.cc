#include "runtime/comm/mpi/messages.h"

#include <algorithm>
#include <cstdlib>

#include "fmt/format.h"
#include "runtime/comm/mpi/engine.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int64_t kMaxPieceBytes = int64_t{1} << 30;

}  // namespace

std::string MpiErrorText(int result) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  return std::string(text, length);
}

int LargestMpiTag() {
  const int* largest = nullptr;
  int found = 0;
  CheckMpi(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &largest, &found),
           "finding the largest tag");
  CHECK(found);
  return *largest;
}

void AbortJob(std::string_view message) {
  LOG(ERROR) << message;
  MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
  std::abort();
}

void CheckMpi(int result, std::string_view what) {
  if (result == MPI_SUCCESS) return;
  AbortJob(fmt::format("{}: {}", what, MpiErrorText(result)));
}

void Messages::Send(const void* data, int64_t bytes, int to, int tag,
                    std::string_view what) {
  const char* from = static_cast<const char*>(data);
  const auto send = engine_.synchronous_sends() ? MPI_Issend : MPI_Isend;
  for (int64_t begin = 0; begin < bytes; begin += kMaxPieceBytes) {
    const int count = static_cast<int>(std::min(kMaxPieceBytes, bytes - begin));
    engine_.Check(send(from + begin, count, MPI_BYTE, to, tag, communicator_,
                       &requests_.emplace_back()),
                  what);
    parts_.push_back({to, -1});
  }
}

void Messages::Receive(void* data, int64_t bytes, int from, int tag,
                       std::string_view what) {
  char* to = static_cast<char*>(data);
  for (int64_t begin = 0; begin < bytes; begin += kMaxPieceBytes) {
    const int count = static_cast<int>(std::min(kMaxPieceBytes, bytes - begin));
    engine_.Check(MPI_Irecv(to + begin, count, MPI_BYTE, from, tag,
                            communicator_, &requests_.emplace_back()),
                  what);
    parts_.push_back({from, count});
  }
}

bool Messages::Test(std::string_view what) {
  if (requests_.empty()) return true;
  statuses_.resize(requests_.size());
  int complete = 0;
  const int result = MPI_Testall(static_cast<int>(requests_.size()),
                                 requests_.data(), &complete, statuses_.data());
  if (result == MPI_ERR_IN_STATUS) {
    for (size_t i = 0; i < statuses_.size(); ++i) {
      const int error = statuses_[i].MPI_ERROR;
      if (error == MPI_SUCCESS || error == MPI_ERR_PENDING) continue;
      engine_.Fail(fmt::format("{}: message with rank {}: {}", what,
                               parts_[i].peer, MpiErrorText(error)));
    }
  }
  engine_.Check(result, what);
  if (!complete) return false;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].expected_bytes < 0) continue;
    int bytes = 0;
    MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes);
    if (bytes != parts_[i].expected_bytes) {
      engine_.Fail(fmt::format("{}: rank {} sent {} bytes, expected {}", what,
                               parts_[i].peer, bytes,
                               parts_[i].expected_bytes));
    }
  }
  requests_.clear();
  parts_.clear();
  return true;
}

}  // namespace trireme
