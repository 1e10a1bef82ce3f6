// The first and last instructions of every exception.
//
// The registers are pushed for the crash report, which does not return.

.section .text.fata_traps, "ax", @progbits
.code64

// Vectors 0 to 31. Those without an error code get a zero in its place.
.balign 16
.global fata_exception_stubs
fata_exception_stubs:
.set fata_vector, 0
.rept 32
    .balign 16
    .if (fata_vector == 8) || ((fata_vector >= 10) && (fata_vector <= 14)) || (fata_vector == 17) || (fata_vector == 21) || (fata_vector == 29) || (fata_vector == 30)
    .else
        push 0
    .endif
    push fata_vector
    jmp fata_exception
    .set fata_vector, fata_vector + 1
.endr

fata_exception:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    cld
    call {exception}
    ud2
