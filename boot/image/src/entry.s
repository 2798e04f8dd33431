# From the multiboot loader, or from a start-up interrupt, to Rust code in long mode.
#
# Sets up an execution environment and nothing more: tables that map the first 4 GiB at its own address by 2 MiB
# pages, SSE, a stack, a descriptor table. References: Multiboot Specification 0.6.96, 3.2; AMD64 APM volume 2,
# rev. 3.41, 14.4 (initialization), 1.2.
#
# The x87 unit is left as reset left it: why `FNINIT` must not be used here is said in `firewall`, `registers`.
#
# True at `multiboot_entry`: 32-bit protected mode, paging off, EAX the magic number, EBX the information.
# True at `startup_begin`: real mode, CS:IP at the start of the page that was named in the start-up interrupt; the boot
# CPU has been through `multiboot_entry`, so the tables exist.
# Not known: any other register, the stack.

.set MULTIBOOT_MAGIC, 0x1badb002
.set MULTIBOOT_FLAGS, 0x00010003        # page-aligned modules, memory information, address fields
.set STARTUP_PAGE, 0x8000               # where `startup_begin` is copied to

.set CR0_LONG, 0x80010033               # PG, WP, NE, ET, MP, PE
.set CR0_PROTECTED, 0x00000033
.set CR4_BITS, 0x00000660               # OSXMMEXCPT, OSFXSR, MCE, PAE
.set MSR_EFER, 0xc0000080
.set EFER_BITS, 0x00000900              # NXE, LME
.set MACHINE_CHECK_ARCHITECTURE, 1 << 14  # CPUID 1, EDX
.set MSR_MCG_CAP, 0x179
.set MSR_MCG_CTL, 0x17b
.set MCG_CTL_PRESENT, 1 << 8
.set BRANCH, 0x003                      # present, writable
.set LEAF, 0x083                        # present, writable, large
.set GIBIBYTES, 4
.set APIC_ID_REGISTER, 0xfee00020
.set REAL_MODE_HALT, (STARTUP_PAGE << 12) + (startup_halt - startup_begin)   # segment:offset

.set CODE_64, 0x08
.set DATA, 0x10
.set CODE_32, 0x18

# Switches long mode on, in compatibility mode until the next far jump. Changes EAX, ECX, EDX, ESI. A macro, for the
# other CPUs have no stack yet.
.macro enter_long_mode
    movl $CR4_BITS, %eax
    movl %eax, %cr4
    movl $entry_root, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    movl $EFER_BITS, %eax
    xorl %edx, %edx
    wrmsr
    # Machine checks are reported only where the control register says so, if there is one.
    movl %ebx, %esi
    movl $1, %eax
    cpuid
    movl %esi, %ebx
    testl $MACHINE_CHECK_ARCHITECTURE, %edx
    jz .Lno_machine_checks\@
    movl $MSR_MCG_CAP, %ecx
    rdmsr
    testl $MCG_CTL_PRESENT, %eax
    jz .Lno_machine_checks\@
    movl $MSR_MCG_CTL, %ecx
    movl $0xffffffff, %eax
    movl %eax, %edx
    wrmsr
.Lno_machine_checks\@:
    movl $CR0_LONG, %eax
    movl %eax, %cr0
.endm

.section .multiboot, "ax"
.balign 4
multiboot_header:
    .long MULTIBOOT_MAGIC
    .long MULTIBOOT_FLAGS
    .long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)
    .long multiboot_header
    .long image_start
    .long image_load_end
    .long image_end
    .long multiboot_entry

.section .entry, "ax"
.code32
.global multiboot_entry
.type multiboot_entry, @function
multiboot_entry:
    cli
    cld
    movl %eax, %ebp
    movl $entry_stack_top, %esp
    # The page directories: every 2 MiB of the first 4 GiB at its own address.
    movl $entry_directories, %edi
    movl $LEAF, %eax
    xorl %edx, %edx
    movl $(GIBIBYTES * 512), %ecx
1:  movl %eax, (%edi)
    movl %edx, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    # The level above, and the root.
    movl $entry_upper, %edi
    movl $(entry_directories + BRANCH), %eax
    movl $GIBIBYTES, %ecx
2:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 2b
    movl $(entry_upper + BRANCH), entry_root
    # The start-up code for the other CPUs.
    movl $startup_begin, %esi
    movl $STARTUP_PAGE, %edi
    movl $(startup_end - startup_begin), %ecx
    rep movsb
    # A CPU that waits for its start-up interrupt should ignore NMIs; QEMU wakes it, in real mode at the reset vector,
    # where it would reset the machine. Vectors 2 and 18 lead it into a halt that only INIT ends.
    movl $REAL_MODE_HALT, 2 * 4
    movl $REAL_MODE_HALT, 18 * 4
    enter_long_mode
    lgdt entry_descriptors_pointer
    ljmp $CODE_64, $boot_cpu_64

.code64
boot_cpu_64:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movq $entry_stack_top, %rsp
    movl %ebp, %edi
    movl %ebx, %esi
    xorl %ebp, %ebp
    call boot_cpu_entry
    ud2

other_cpu_64:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl $APIC_ID_REGISTER, %eax
    movl (%rax), %edi
    shrl $24, %edi
    movq $startup_stacks, %rax
    movq (%rax, %rdi, 8), %rsp
    testq %rsp, %rsp
    jz 1f
    xorl %ebp, %ebp
    call other_cpu_entry
1:  cli
    hlt
    jmp 1b

# Copied to STARTUP_PAGE; addresses in it are computed from there.
.code16
.balign 16
startup_begin:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl STARTUP_PAGE + startup_descriptors_pointer - startup_begin
    movl $CR0_PROTECTED, %eax
    movl %eax, %cr0
    ljmpl $CODE_32, $(STARTUP_PAGE + startup_32 - startup_begin)
.code32
startup_32:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    # No stack yet, and several CPUs may be here at once: the address to return to is in EBX.
    movl $startup_long, %ebx
    jmp *%ebx
.balign 8
startup_descriptors_pointer:
    .word entry_descriptors_end - entry_descriptors - 1
    .long entry_descriptors
# Entered in real mode by an NMI or a machine check. Does not return, so that further ones stay blocked.
startup_halt:
    .byte 0xfa, 0xf4, 0xeb, 0xfd        # cli; hlt; back to the hlt
startup_end:

startup_long:
    enter_long_mode
    lgdt entry_descriptors_pointer
    ljmp $CODE_64, $other_cpu_64
.code64

.section .rodata
.balign 16
entry_descriptors:
    .quad 0
    .quad 0x00af9b000000ffff            # 64-bit code
    .quad 0x00cf93000000ffff            # data
    .quad 0x00cf9b000000ffff            # 32-bit code
entry_descriptors_end:
entry_descriptors_pointer:
    .word entry_descriptors_end - entry_descriptors - 1
    .quad entry_descriptors

.section .bss
.balign 4096
entry_root: .skip 4096
entry_upper: .skip 4096
entry_directories: .skip GIBIBYTES * 4096
entry_stack: .skip 65536
entry_stack_top:
